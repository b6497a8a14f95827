"""The options of twistd irontide."""

from __future__ import annotations

import io
import os
import sys

from twisted.python import usage

from irontide import __version__
from irontide.errors import ValidationFailed
from irontide.service.options import Options, parse_listen
from irontide.settings import OPTIONS, defaults
from tests.temporary import FolderTestCase


class OptionsTests(FolderTestCase):
    """Options as twistd uses them."""

    def setUp(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IRONTIDE_")}
        self.patch(os, "environ", {**clean, "XDG_CONFIG_HOME": os.path.abspath(self.mktemp())})

    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def exit_text(self, *arguments: str) -> str:
        return str(self.assertRaises(SystemExit, self.parse, *arguments).code)

    def test_nothing_said(self) -> None:
        self.assertEqual(self.parse().settings, defaults())

    def test_every_setting_is_an_option(self) -> None:
        for name, row in OPTIONS.items():
            default = getattr(defaults(), name)
            if default is None:
                continue
            text = ",".join(default) if isinstance(default, tuple) else str(default)
            got = self.parse(f"--{name.replace('_', '-')}={text}").settings
            self.assertEqual(getattr(got, name), default, row.help)

    def test_config_file(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("listen_port = 1\nupload_slots = 3\n")
        self.assertEqual(self.parse("--config", path, "--listen-port", "2").settings.listen_port, 2)
        os.environ["IRONTIDE_CONFIG"] = path
        self.assertEqual(self.parse().settings.upload_slots, 3)

    def test_usual_config_file_is_read_if_there(self) -> None:
        folder = os.path.join(os.environ["XDG_CONFIG_HOME"], "irontide")
        os.makedirs(folder)
        with open(os.path.join(folder, "irontide.toml"), "w") as file:
            file.write("listen_port = 77\n")
        self.assertEqual(self.parse().settings.listen_port, 77)

    def test_chosen_config_file_has_to_be_there(self) -> None:
        self.assertIn("No such file", self.exit_text("--config", self.mktemp()))

    def test_listen(self) -> None:
        got = self.parse("--listen", "127.0.0.1:7000").settings
        self.assertEqual((got.listen_addresses, got.listen_port), (("127.0.0.1",), 7000))
        got = self.parse("--listen", "7001").settings
        self.assertEqual((got.listen_addresses, got.listen_port), (("0.0.0.0", "::"), 7001))

    def test_listen_forms(self) -> None:
        self.assertEqual(parse_listen("[::1]:5"), {"listen_addresses": "::1", "listen_port": "5"})
        self.assertEqual(parse_listen(":5"), {"listen_port": "5"})
        self.assertRaises(ValidationFailed, parse_listen, "::1:5")

    def test_all_errors_at_once_in_a_line_each(self) -> None:
        os.environ["IRONTIDE_UPLOAD_RATE"] = "fast"
        text = self.exit_text("--listen", "localhost:99999", "--disk-threads", "0")
        self.assertEqual(len(text.splitlines()), 4)
        for name in ("upload_rate", "listen_addresses", "listen_port", "disk_threads"):
            self.assertIn(f"irontide: {name}: ", text)

    def test_said_twice(self) -> None:
        self.assertIn("twice", self.exit_text("--listen", "1", "--listen-port", "2"))

    def test_unknown_option(self) -> None:
        self.assertRaises(usage.UsageError, self.parse, "--bogus")

    def test_version_is_ours(self) -> None:
        self.patch(sys, "stdout", io.StringIO())
        self.assertEqual(self.exit_text("--version"), "0")
        self.assertEqual(sys.stdout.getvalue(), f"irontide {__version__}\n")
