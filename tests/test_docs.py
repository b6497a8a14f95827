"""The documentation says what the code says, where that can be compared."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docs import make_settings
from irontide.extensions import EXTENSIONS
from irontide.settings import OPTIONS, human_size, load
from irontide.settings.option import options_of
from tests.test_layers import LAYERS, PACKAGE, ROOT

DOCS = ROOT / "docs"
FRAGMENT = re.compile(r"\d+\.(feature|bugfix|doc|removal|misc)(\.\d+)?\.rst")
LIMIT = re.compile(
    r"   \* - (?P<what>.+)\n     - (?P<value>.+)\n     - ``(?P<name>[\w.]+)``\n     - (?P<then>.+)\n"
)


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def words_for(value: float) -> set[str]:
    """How a page may write a limit."""
    count = f"{value:,}".removesuffix(".0")
    return {count, f"{count} s", human_size(value), f"{value:.0%}"}


class SettingsTests(SynchronousTestCase):
    def test_page_is_that_of_the_table(self) -> None:
        self.assertEqual(read("settings.rst"), make_settings.page(), "run: python docs/make_settings.py")

    def test_every_setting_has_its_place(self) -> None:
        shown = [name for _, settings in make_settings.AREAS for name in options_of(settings)]
        self.assertEqual(sorted(shown), sorted(OPTIONS))

    def test_example_is_right(self) -> None:
        settings = load(str(DOCS / "examples" / "irontide.toml"), {}, {})
        self.assertEqual(settings.download_rate, 20 << 20)
        self.assertEqual(settings.upload_rate, 0)


class LimitsTests(SynchronousTestCase):
    def test_limits_are_those_of_the_code(self) -> None:
        rows = list(LIMIT.finditer(read("operations.rst")))
        self.assertGreater(len(rows), 30)
        for row in rows:
            package, module, *names = row["name"].split(".")
            value = importlib.import_module(f"irontide.{package}.{module}")
            for name in names:
                value = getattr(value, name)
            self.assertIn(row["value"], words_for(value), row["name"])


class ArchitectureTests(SynchronousTestCase):
    def test_layers_are_those_that_are_held(self) -> None:
        found = {
            name: int(level)
            for level, names in re.findall(r"^ +L(\d+) +([a-z ]+)$", read("architecture.rst"), re.MULTILINE)
            for name in names.split()
        }
        held = {
            name: level
            for level, names in enumerate(LAYERS)
            for name in names
            if name not in ("__init__", "__main__", "log")
        }
        self.assertEqual(found, held)

    def test_tree_is_as_it_is(self) -> None:
        page = read("architecture.rst")
        for module in PACKAGE.glob("*/*.py"):
            if module.name != "__init__.py":
                package = module.parent.name
                line = re.search(rf"^    {package}/\n((?:        .*\n)+)", page, re.MULTILINE)
                self.assertIsNotNone(line, package)
                assert line is not None
                self.assertIn(module.stem, line[1].split(), f"{package}/{module.name}")


class PagesTests(SynchronousTestCase):
    def pages(self) -> set[str]:
        return {path.stem for path in DOCS.glob("*.rst")}

    def test_index_has_all_pages(self) -> None:
        listed = set(re.findall(r"^   ([a-z-]+)$", read("index.rst"), re.MULTILINE))
        self.assertEqual(listed, self.pages() - {"index"})

    def test_files_that_are_named_exist(self) -> None:
        for page in [*self.pages(), "../README"]:
            text = read(f"{page}.rst") if page != "../README" else (ROOT / "README.md").read_text("utf-8")
            for name in re.findall(r"`((?:irontide|tests|docs|bench)/[\w/.-]+)`", text):
                self.assertTrue((ROOT / name).exists(), f"{page}: {name}")

    def test_extensions_have_a_row(self) -> None:
        page = read("beps.rst")
        for name in EXTENSIONS:
            self.assertIn(name.removeprefix("lt_"), page)

    def test_news_fragments_have_names_that_towncrier_takes(self) -> None:
        for path in Path(DOCS / "newsfragments").iterdir():
            if not path.name.startswith("."):
                self.assertRegex(path.name, FRAGMENT)
                self.assertTrue(path.read_text(encoding="utf-8").strip(), path.name)
