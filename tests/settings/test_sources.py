"""Where settings come from, who wins, and that every error is told."""

from __future__ import annotations

import os

import attrs
from hypothesis import given
from hypothesis import strategies as st

from irontide.errors import SettingsError, ValidationFailed
from irontide.settings import OPTIONS, Settings, defaults, load, unknown_variables
from irontide.settings.sources import MAX_CONFIG_FILE
from tests.temporary import FolderTestCase


class LoadTests(FolderTestCase):
    """load, with files in a temporary folder."""

    def config(self, text: str | bytes) -> str:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        return path

    def errors(self, *sources: object) -> dict[str, str]:
        return self.assertRaises(ValidationFailed, load, *sources).errors

    def test_nothing_said_is_the_defaults(self) -> None:
        self.assertEqual(load(None, {}, {}), defaults())

    def test_every_default_is_valid_and_explained(self) -> None:
        for name, row in OPTIONS.items():
            row.kind.parse(getattr(defaults(), name))
            self.assertTrue(row.help.endswith("."), name)

    def test_precedence(self) -> None:
        path = self.config("listen_port = 1\nupload_slots = 1\ndisk_threads = 1")
        got = load(path, {"IRONTIDE_UPLOAD_SLOTS": "2", "IRONTIDE_DISK_THREADS": "2"}, {"disk_threads": "3"})
        self.assertEqual((got.listen_port, got.upload_slots, got.disk_threads), (1, 2, 3))

    def test_option_not_given(self) -> None:
        self.assertEqual(load(None, {"IRONTIDE_LISTEN_PORT": "7"}, {"listen_port": None}).listen_port, 7)

    def test_typed_option(self) -> None:
        got = load(None, {}, {"listen_next_port": True, "peer_timeout": 20})
        self.assertEqual((got.listen_next_port, got.peer_timeout), (True, 20.0))

    def test_sizes_and_rates_with_units(self) -> None:
        got = load(
            self.config('download_buffers = "64 MiB"\nupload_rate = 1000\ndownload_rate = "10 MiB/s"'), {}, {}
        )
        self.assertEqual(
            (got.download_buffers, got.upload_rate, got.download_rate), (64 << 20, 1000, 10 << 20)
        )

    def test_paths_count_from_where_they_are_written(self) -> None:
        path = self.config('downloads = "here"')
        got = load(path, {}, {"state": "there"})
        self.assertEqual(got.downloads, os.path.join(os.path.dirname(os.path.abspath(path)), "here"))
        self.assertEqual(got.state, os.path.join(os.getcwd(), "there"))

    def test_all_errors_at_once(self) -> None:
        """A11: each with the field's name; none hides another, whatever its source."""
        path = self.config(
            'listen_port = "6881"\npeer_timeout = nan\nupload_buffers = -1\nbogus = 1\ndisk_threads = true\n'
            "open_files = 0xffffffffffffffffffff\n[limits]\nx = 1"
        )
        errors = self.errors(path, {"IRONTIDE_UPLOAD_RATE": "-5"}, {"max_connections": "0"})
        self.assertEqual(
            set(errors),
            {
                "listen_port", "peer_timeout", "upload_buffers", "bogus", "disk_threads", "open_files",
                "limits", "upload_rate", "max_connections",
            },
        )  # fmt: skip

    def test_wrong_value_stays_an_error_though_overruled(self) -> None:
        errors = self.errors(self.config("listen_port = 70000"), {}, {"listen_port": "7"})
        self.assertEqual(errors, {"listen_port": "70000 is more than 65535"})

    def test_unknown_variables_are_told_not_fatal(self) -> None:
        """Container platforms set IRONTIDE_PORT and the like for a service of our name."""
        environment = {
            "IRONTIDE_PORT": "tcp://10.0.0.1",
            "IRONTIDE_CONFIG": "x",
            "IRONTIDE_STATE": "/s",
            "HOME": "/",
        }
        self.assertEqual(load(None, environment, {}).state, "/s")
        self.assertEqual(unknown_variables(environment), ["IRONTIDE_PORT"])

    def test_unknown_option_is_an_error(self) -> None:
        self.assertEqual(set(self.errors(None, {}, {"nonsense": "1"})), {"nonsense"})

    def test_file_that_cannot_be_read(self) -> None:
        for path in (
            self.mktemp(),
            "/",
            self.config("listen_port ="),
            self.config(b"\xff\xfe"),
            self.config("listen_port = " + "9" * 5000),
            self.config("x = " + "[" * 5000),
            self.config("#" * (MAX_CONFIG_FILE + 1)),
        ):
            error = self.assertRaises(SettingsError, load, path, {}, {})
            self.assertNotIsInstance(error, ValidationFailed)
            self.assertIn(path, str(error))

    def test_many_unknown_keys_are_bounded(self) -> None:
        text = "\n".join(f"k{number} = 1" for number in range(5000))
        self.assertLess(len(self.errors(self.config(text), {}, {})), 200)


class SettingsTests(FolderTestCase):
    """The value itself."""

    def test_wrong_values_are_refused_all_at_once(self) -> None:
        error = self.assertRaises(
            ValidationFailed, Settings, listen_port=-1, upload_rate=1.5, preallocate="no"
        )
        self.assertEqual(set(error.errors), {"listen_port", "upload_rate", "preallocate"})

    def test_evolving_is_checked(self) -> None:
        self.assertRaises(ValidationFailed, attrs.evolve, Settings(), disk_threads=0)

    def test_it_cannot_change(self) -> None:
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            Settings().listen_port = 1  # type: ignore[misc]

    def test_directories_are_the_users(self) -> None:
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": "/elsewhere"})
        self.assertEqual(defaults().state, "/elsewhere/irontide")


class AnyValueTests(FolderTestCase):
    """Whatever stands in a file, the outcome is settings or a SettingsError."""

    @given(
        st.dictionaries(
            st.sampled_from(sorted(OPTIONS)) | st.text(max_size=5),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.lists(st.text(), max_size=3),
            max_size=5,
        )
    )
    def test_any_values(self, values: dict[str, object]) -> None:
        try:
            load(None, {}, values)
        except ValidationFailed as error:
            self.assertLessEqual(set(error.errors), {name[:60] for name in values})
