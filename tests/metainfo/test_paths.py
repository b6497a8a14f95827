"""Names of strangers: what they may do to a file system, and to whoever reads them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import MetainfoError
from irontide.metainfo.paths import (
    MAX_DEPTH,
    MAX_EQUAL_NAMES,
    MAX_NAME_BYTES,
    sanitise,
    sanitise_name,
    shorten,
    unique,
)

NASTY = [
    "",
    ".",
    "..",
    "/",
    "\\",
    "\0",
    "C:",
    "\u202e",
    "\u200b",
    "\u2060",
    "\ufeff",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\u2028",
    "\ud800",
    "con",
    "NUL.txt",
    "e\u0301",
    "\u00e9",
    "ß",
    "SS",
    " ",
    "\u3000",
    "a" * 300,
    "ä" * 200,
    "." + "x" * 250,
]
names = st.lists(st.sampled_from(NASTY) | st.text(max_size=4), max_size=4).map("".join)
few_names = st.sampled_from(["a", "A", "b", "a (1)", "A (1)", "é", "e\u0301", "É", "a.txt", "A.TXT"])


class NameTests(SynchronousTestCase):
    """One component."""

    def test_good_names_stay(self) -> None:
        for name in (
            "a",
            "file.txt",
            "Some Film (2024) [1080p] {x265} #1 & more!.mkv",
            ".hidden",
            "..two",
            "...",
            "ab:c",
            "x" * MAX_NAME_BYTES,
            "Übergröße.txt",
            "日本語.txt",
            "e\u0301",
            "❤\ufe0f.png",
            "con",
            "what?.txt",
            "end.",
        ):
            self.assertEqual(sanitise_name(name), name)

    def test_bad_names(self) -> None:
        for name, safe in (
            ("", "_"),
            (".", "_"),
            ("..", "_"),
            (" .. ", "_"),
            ("\u200b..", "_"),
            (".\u202e.", "_"),
            ("/", "_"),
            ("/etc/passwd", "_etc_passwd"),
            ("../../x", ".._.._x"),
            ("..\\..\\x", ".._.._x"),
            ("a\0b", "a_b"),
            ("a\nb\x1b[2Jc\x7f\x85", "a_b_[2Jc__"),
            ("C:", "C_"),
            ("a:b", "a_b"),
            ("c:\\windows", "c__windows"),
            ("photo\u202egnp.exe", "photognp.exe"),
            ("a\u200bb\u2060c\ufeffd\u00ade", "abcde"),
            ("line\u2028para\u2029", "line_para_"),
            ("bad\ufffdbytes", "bad_bytes"),
            ("lone\ud800", "lone_"),
            ("  spaces  ", "spaces"),
            ("\u3000", "_"),
        ):
            self.assertEqual(sanitise_name(name), safe, repr(name))

    def test_reserved_names_only_where_the_file_system_is_foreign(self) -> None:
        for name, safe in (
            ("con", "_con"),
            ("Con.txt", "_Con.txt"),
            ("NUL", "_NUL"),
            ("COM1", "_COM1"),
            ("lpt9.tar.gz", "_lpt9.tar.gz"),
            ("com¹", "_com¹"),
            ("CONIN$", "_CONIN$"),
            ("aux .c", "_aux .c"),
            ("console", "console"),
            ("com10", "com10"),
            ("end. .", "end"),
            ("...", "_"),
            ('a<b>c:d"e|f?g*h', "a_b_c_d_e_f_g_h"),
        ):
            self.assertEqual(sanitise_name(name, foreign=True), safe)
        self.assertEqual(sanitise_name("NUL"), "NUL")

    def test_long_names_keep_their_extension(self) -> None:
        name = sanitise_name("x" * 300 + ".mkv")
        self.assertEqual(name, "x" * 236 + ".mkv")
        name = sanitise_name("ä" * 200 + ".mkv")
        self.assertEqual(name, "ä" * 118 + ".mkv")

    def test_characters_are_not_cut_in_the_middle(self) -> None:
        for extra in range(4):
            name = sanitise_name("x" * extra + "😀" * 100)
            self.assertLessEqual(len(name.encode()), MAX_NAME_BYTES)
            self.assertGreater(len(name.encode()), MAX_NAME_BYTES - 4)

    def test_a_cut_leaves_no_space_at_the_end(self) -> None:
        self.assertEqual(sanitise_name("x" * (MAX_NAME_BYTES - 1) + " and more"), "x" * (MAX_NAME_BYTES - 1))

    def test_an_overlong_extension_is_none(self) -> None:
        self.assertEqual(shorten("a." + "b" * 300, 100), "a." + "b" * 98)

    def test_a_dot_file_is_all_stem(self) -> None:
        self.assertEqual(shorten("." + "b" * 300, 100), "." + "b" * 99)


class PathTests(SynchronousTestCase):
    """Components together."""

    def test_depth(self) -> None:
        self.assertEqual(len(sanitise(["a"] * MAX_DEPTH)), MAX_DEPTH)
        for count in (0, MAX_DEPTH + 1):
            self.assertRaises(MetainfoError, sanitise, ["a"] * count)

    def test_each_component(self) -> None:
        self.assertEqual(sanitise(["..", "etc", "a/b"]), ("_", "etc", "a_b"))
        self.assertEqual(sanitise(["aux", "b."], foreign=True), ("_aux", "b"))


class UniqueTests(SynchronousTestCase):
    """No two files are one."""

    def made(self, *paths: str) -> list[str]:
        return ["/".join(path) for path in unique([tuple(path.split("/")) for path in paths])]

    def test_different_names_stay(self) -> None:
        self.assertEqual(self.made("t/a", "t/b", "t/d/a", "t/e/a"), ["t/a", "t/b", "t/d/a", "t/e/a"])

    def test_equal_names_get_numbers(self) -> None:
        self.assertEqual(
            self.made("t/a.txt", "t/a.txt", "t/a.txt"), ["t/a.txt", "t/a (1).txt", "t/a (2).txt"]
        )

    def test_case(self) -> None:
        self.assertEqual(self.made("t/readme", "t/README"), ["t/readme", "t/README (1)"])
        self.assertEqual(self.made("t/straße", "t/STRASSE"), ["t/straße", "t/STRASSE (1)"])

    def test_case_of_a_folder(self) -> None:
        self.assertEqual(self.made("t/D/a", "t/d/a", "t/d/b"), ["t/D/a", "t/d/a (1)", "t/d/b"])

    def test_composition_of_accents(self) -> None:
        self.assertEqual(self.made("t/\u00e9", "t/e\u0301"), ["t/\u00e9", "t/e\u0301 (1)"])

    def test_a_folder_keeps_its_name(self) -> None:
        """Whichever is first: the files in it are many, the file is one."""
        self.assertEqual(self.made("t/a", "t/a/b"), ["t/a (1)", "t/a/b"])
        self.assertEqual(self.made("t/a/b/c", "t/A", "t/a/B"), ["t/a/b/c", "t/A (1)", "t/a/B (1)"])

    def test_a_number_that_is_taken(self) -> None:
        self.assertEqual(self.made("t/a", "t/a (1)", "t/a"), ["t/a", "t/a (1)", "t/a (2)"])

    def test_numbers_keep_within_the_length(self) -> None:
        long = "x" * (MAX_NAME_BYTES - 4) + ".mkv"
        made = self.made(long, long)
        self.assertEqual(made[1], "x" * (MAX_NAME_BYTES - 8) + " (1).mkv")

    def test_too_many_equal_names(self) -> None:
        paths = [("t", "a" if i % 2 else "A") for i in range(MAX_EQUAL_NAMES)]
        self.assertEqual(len(set(unique(paths))), MAX_EQUAL_NAMES)
        self.assertRaises(MetainfoError, unique, [*paths, ("t", "a")])

    def test_hostile_numbers_cost_no_square(self) -> None:
        """Names that occupy the numbers that others will need: linear, so this ends at once."""
        paths = [("t", f"a ({n})") for n in range(1, 100_000)] + [("t", "a")] * MAX_EQUAL_NAMES
        made = unique(paths)
        self.assertEqual(len(set(made)), len(paths))
        self.assertEqual(made[-1], ("t", f"a ({100_000 + MAX_EQUAL_NAMES - 2})"))


class PropertyTests(SynchronousTestCase):
    """Any names."""

    def assertSafe(self, name: str) -> None:
        encoded = name.encode()
        self.assertTrue(0 < len(encoded) <= MAX_NAME_BYTES)
        self.assertNotIn(name, (".", ".."))
        self.assertEqual(os.path.basename(name), name)
        self.assertEqual(PurePosixPath(name).parts, (name,))
        for character in name:
            self.assertNotIn(unicodedata.category(character), ("Cc", "Cs", "Zl", "Zp"))
            self.assertNotIn(
                unicodedata.bidirectional(character),
                ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
            )

    @given(names, st.booleans())
    def test_always_safe(self, name: str, foreign: bool) -> None:
        safe = sanitise_name(name, foreign=foreign)
        self.assertSafe(safe)
        self.assertEqual(sanitise_name(safe, foreign=foreign), safe)

    @given(st.lists(st.lists(few_names, min_size=1, max_size=3).map(tuple), max_size=12))
    def test_always_unique(self, paths: list[tuple[str, ...]]) -> None:
        made = unique(paths)
        folded = [tuple(unicodedata.normalize("NFC", part.casefold()) for part in path) for path in made]
        self.assertEqual(len(set(folded)), len(paths))
        folders = {path[:end] for path in folded for end in range(1, len(path))}
        self.assertEqual(folders & set(folded), set())
        self.assertEqual([path[:-1] for path in made], [path[:-1] for path in paths])
