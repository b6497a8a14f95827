"""How each kind of value is written, and what is refused."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.settings.kinds import (
    KIB,
    MIB,
    Addresses,
    Choice,
    Flag,
    Kind,
    Path,
    Rate,
    Seconds,
    Size,
    Whole,
    human_size,
)

JUNK = [
    None,
    True,
    False,
    -1,
    1.5,
    math.nan,
    math.inf,
    10**40,
    "",
    "x",
    "nan",
    "\0",
    b"1",
    [],
    [[]],
    {},
    {"a": 1},
]
KINDS: list[Kind] = [
    Whole(0, 100, unlimited=-1),
    Whole(1, 65535),
    Size(1, MIB),
    Rate(),
    Seconds(0, 10),
    Flag(),
    Choice(("a", "b")),
    Path(),
    Path(optional=True),
    Addresses(),
]


class KindTests(SynchronousTestCase):
    """Each kind by its parse and parse_text."""

    def assertRefused(self, kind: Kind, *values: object) -> None:
        for value in values:
            error = self.assertRaises(ValueError, kind.parse, value)
            self.assertLess(len(str(error)), 250, value)

    def assertTextRefused(self, kind: Kind, *texts: str) -> None:
        for text in texts:
            self.assertRaises(ValueError, kind.parse_text, text)

    def test_whole(self) -> None:
        kind = Whole(1, 10)
        self.assertEqual([kind.parse(1), kind.parse(10), kind.parse_text("7")], [1, 10, 7])
        self.assertRefused(kind, 0, 11, -1, 1.0, True, "1", None, math.nan)
        self.assertTextRefused(kind, "0", "1.0", "", "one", "٣", "1_0", " 1", "9" * 5000)

    def test_cap(self) -> None:
        """L12: -1 is unlimited; 0 and less than -1 are refused."""
        kind = Whole(1, 10, unlimited=-1)
        self.assertEqual([kind.parse(-1), kind.parse("unlimited"), kind.parse_text("-1")], [-1, -1, -1])
        self.assertRefused(kind, 0, -2, 11, -1.0)
        self.assertEqual([kind.show(-1), kind.show(3)], ["unlimited", "3"])

    def test_size(self) -> None:
        kind = Size(0, 1 << 40)
        for text, size in (
            ("0", 0),
            ("64 MiB", 64 * MIB),
            ("64MiB", 64 * MIB),
            ("1.5 KiB", 1536),
            ("10 kB", 10_000),
            ("12 B", 12),
            ("1 TiB", 1 << 40),
            ("0.1 MB", 100_000),
        ):
            self.assertEqual(kind.parse(text), size, text)
        self.assertEqual(kind.parse(5), 5)
        self.assertRefused(kind, "5 M", "MiB", "-1 MiB", "1,5 MiB", "1 MiB/s", "2 TiB", "1e3", 2.0, True, -1)

    def test_size_is_exact(self) -> None:
        """No float stands between the text and the number."""
        self.assertEqual(Size(0, 1 << 60).parse("9007199254740993"), 9007199254740993)

    def test_rate(self) -> None:
        kind = Rate()
        for text, rate in (
            ("10 MiB/s", 10 * MIB),
            ("10 KiB", 10 * KIB),
            ("0", 0),
            ("unlimited", 0),
            ("7/s", 7),
        ):
            self.assertEqual(kind.parse(text), rate, text)
        self.assertRefused(kind, -1, "-1", "fast", "1 MiB/h", math.inf, 1.5)
        self.assertEqual([kind.show(0), kind.show(MIB)], ["unlimited", "1 MiB/s"])

    def test_seconds(self) -> None:
        kind = Seconds(0.5, 10)
        self.assertEqual([kind.parse(1), kind.parse(0.5), kind.parse_text("2.5")], [1.0, 0.5, 2.5])
        self.assertRefused(kind, 0.4, 11, math.nan, math.inf, -math.inf, "1", True, None, 10**400)
        self.assertTextRefused(kind, "nan", "inf", "1e999", "", "soon")

    def test_flag(self) -> None:
        kind = Flag()
        self.assertEqual([kind.parse(True), kind.parse(False)], [True, False])
        self.assertRefused(kind, 1, 0, "true", None)
        self.assertEqual(
            [kind.parse_text(word) for word in ("yes", "ON", "0", "False")], [True, True, False, False]
        )
        self.assertTextRefused(kind, "", "2", "maybe")

    def test_choice(self) -> None:
        kind = Choice(("sparse", "full"))
        self.assertEqual(kind.parse("full"), "full")
        self.assertRefused(kind, "Full", "", None, 1, ["full"])

    def test_path(self) -> None:
        self.assertEqual(Path().resolve(Path().parse("a/../b"), "/base"), "/base/b")
        self.assertEqual(Path().resolve("/x", "/base"), "/x")
        self.assertFalse(str(Path().resolve("~/x", "/base")).startswith("/base"))
        self.assertRefused(Path(), "", None, 1, "a\0b", b"bytes")
        self.assertEqual(
            [
                Path(optional=True).parse(None),
                Path(optional=True).parse(""),
                Path(optional=True).resolve(None, "/"),
            ],
            [None, None, None],
        )

    def test_addresses(self) -> None:
        kind = Addresses(most=3)
        self.assertEqual(kind.parse(["0.0.0.0", "::", "::"]), ("0.0.0.0", "::"))
        self.assertEqual(kind.parse("127.0.0.1, ::1"), ("127.0.0.1", "::1"))
        self.assertRefused(kind, [], "", "localhost", ["1.2.3"], [1], 1, None, ["::"] * 4, {"a"})

    def test_human_size(self) -> None:
        self.assertEqual(
            [human_size(size) for size in (0, 1023, 1024, 1536, 64 * MIB, 3 << 40)],
            ["0 B", "1023 B", "1 KiB", "1.5 KiB", "64 MiB", "3 TiB"],
        )

    def test_junk_is_refused_by_value_error_only(self) -> None:
        for kind in KINDS:
            for junk in JUNK:
                try:
                    kind.parse(junk)
                except ValueError:
                    continue

    @given(st.sampled_from(KINDS), st.text(max_size=40))
    def test_any_text(self, kind: Kind, text: str) -> None:
        """Text is parsed to what parses to itself, or is a ValueError."""
        try:
            value = kind.parse_text(text)
        except ValueError:
            return
        self.assertEqual(kind.parse(value), value)
