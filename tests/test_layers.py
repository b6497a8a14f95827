"""
The import rule and the shape of the source, read from the source itself.

A module imports from its own package and from lower layers: never sideways, never upward, never inside
a function.  See docs/architecture.rst for why.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "irontide"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__init__", "errors", "settings", "flow", "values", "interfaces"),
    ("metainfo",),
    ("wire", "mse", "utp", "dht", "tracker", "lsd", "nat", "library"),
    ("transport", "storage"),
    ("peer", "extensions"),
    ("swarm",),
    ("torrent",),
    ("session",),
    ("api",),
    ("service",),
    ("cli",),
    ("__main__",),
)
"""From L0 up; a name is a package or a module directly below irontide/."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PURE = {"metainfo", "wire", "mse", "utp"}
"""Packages that import no Twisted at all."""
PURE_BUT_SERVICE = {"dht", "tracker", "lsd", "nat", "library"}
"""Packages of which only service.py knows Twisted."""
MAY_IMPORT_REACTOR = {"irontide.service.standalone"}
"""The global reactor belongs to whoever runs the process; irontide.cli is the other one."""
LINES = 400


@attrs.frozen
class Import:
    """One imported module, as written in ``module`` at ``line``."""

    module: str
    line: int
    name: str
    lazy: bool
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the dotted name of the module at ``path``."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports_of(module: str, source: str, is_package: bool = False) -> list[Import]:
    """Return every import of a module, wherever in the text it stands."""
    return list(_walk(ast.parse(source), module, is_package, lazy=False, typing_only=False))


def _walk(node: ast.AST, module: str, is_package: bool, *, lazy: bool, typing_only: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(module, node.lineno, alias.name, lazy, typing_only)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module.split(".") if is_package else module.split(".")[:-1]
            above = package[: len(package) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        for alias in node.names:
            yield Import(module, node.lineno, f"{base}.{alias.name}", lazy, typing_only)
    else:
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        in_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            yield from _walk(
                child, module, is_package, lazy=lazy or in_function, typing_only=typing_only or in_typing
            )


def part_of(module: str) -> str:
    """Return the name in LAYERS that a module belongs to: ``irontide.wire.codec`` is in ``wire``."""
    return (module.split(".") + ["__init__"])[1]


def sources() -> Iterator[tuple[Path, str, str]]:
    """Yield (path, dotted name, text) of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, module_name(path), path.read_text("utf-8")


def all_imports() -> Iterator[Import]:
    """Yield every import in the package."""
    for path, module, text in sources():
        yield from imports_of(module, text, path.name == "__init__.py")


def breaks_layers(imported: Import) -> bool:
    """Tell whether an import goes sideways or upward."""
    if imported.name.split(".")[0] != "irontide":
        return False
    mine, theirs = part_of(imported.module), part_of(imported.name)
    if theirs not in LEVEL and imported.name.count(".") == 1:
        theirs = "__init__"  # a name out of irontide/__init__.py
    if LEVEL[mine] == LEVEL[theirs] == 0:
        return False  # facts and seams may use each other
    if imported.typing_only and imported.module == "irontide.interfaces":
        return False  # a contract may name what it is about
    return mine != theirs and LEVEL[theirs] >= LEVEL[mine]


def must_be_pure(module: str) -> bool:
    """Tell whether a module has to do without Twisted."""
    part = part_of(module)
    return part in PURE or (part in PURE_BUT_SERVICE and not module.endswith(".service"))


class ImportRuleTests(SynchronousTestCase):
    """Every import of the package, against the table."""

    def assertNone(self, wrong: list[object]) -> None:
        self.assertEqual([], [str(each) for each in wrong])

    def test_every_part_is_in_the_table(self) -> None:
        self.assertEqual(set(), {part_of(module) for _, module, _ in sources()} - set(LEVEL))

    def test_only_downward(self) -> None:
        self.assertNone([each for each in all_imports() if breaks_layers(each)])

    def test_pure_packages_know_no_twisted(self) -> None:
        self.assertNone(
            [
                each
                for each in all_imports()
                if each.name.split(".")[0] in ("twisted", "treq") and must_be_pure(each.module)
            ]
        )

    def test_no_import_inside_a_function(self) -> None:
        allowed = ("irontide.cli", *MAY_IMPORT_REACTOR)  # the reactor, once it is chosen
        self.assertNone(
            [
                each
                for each in all_imports()
                if each.lazy
                and not (each.name == "twisted.internet.reactor" and each.module.startswith(allowed))
            ]
        )

    def test_typing_only_imports_are_in_interfaces(self) -> None:
        self.assertNone(
            [each for each in all_imports() if each.typing_only and each.module != "irontide.interfaces"]
        )

    def test_global_reactor_is_left_to_whoever_runs_the_process(self) -> None:
        self.assertNone(
            [
                each
                for each in all_imports()
                if each.name.startswith("twisted.internet.reactor")
                and each.module not in MAY_IMPORT_REACTOR
                and part_of(each.module) != "cli"
            ]
        )


class ShapeTests(SynchronousTestCase):
    """Size and opening of each module."""

    def test_no_module_is_too_long(self) -> None:
        long = [f"{name}: {text.count(chr(10))}" for _, name, text in sources() if text.count("\n") > LINES]
        self.assertEqual([], long)

    def test_every_module_says_what_it_is_for(self) -> None:
        mute = [name for _, name, text in sources() if not ast.get_docstring(ast.parse(text))]
        self.assertEqual([], mute)

    def test_plugin_folder_is_no_package(self) -> None:
        """An __init__.py there would hide the plugins of everybody else."""
        self.assertEqual([], list((ROOT / "twisted").rglob("__init__.py")))


class ReaderTests(SynchronousTestCase):
    """The reading above finds what it should: without this, the rule could rot unseen."""

    def found(self, text: str, module: str = "irontide.peer.peer") -> list[Import]:
        return imports_of(module, text)

    def test_upward(self) -> None:
        (found,) = self.found("from irontide.swarm.picker import Picker")
        self.assertTrue(breaks_layers(found))

    def test_sideways(self) -> None:
        (found,) = self.found("import irontide.extensions.ut_pex")
        self.assertTrue(breaks_layers(found))

    def test_relative_upward(self) -> None:
        (found,) = self.found("from ..swarm import picker")
        self.assertEqual(found.name, "irontide.swarm.picker")
        self.assertTrue(breaks_layers(found))

    def test_downward_and_own(self) -> None:
        for text in (
            "from irontide import errors",
            "from irontide import __version__",
            "from . import rates",
            "from irontide.wire import codec",
            "import attrs",
        ):
            (found,) = self.found(text)
            self.assertFalse(breaks_layers(found), text)

    def test_lazy(self) -> None:
        (found,) = self.found("class A:\n def f(self):\n  if 1:\n   import os")
        self.assertTrue(found.lazy)

    def test_typing_only(self) -> None:
        (found,) = self.found("import_me = 1\nif TYPE_CHECKING:\n from irontide.cli import main")
        self.assertTrue(found.typing_only)
