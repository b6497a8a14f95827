"""Bencode: the strict decoder, its bounds, and bencode2 as a second opinion."""

from __future__ import annotations

import time

import bencode2
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import MetainfoError
from irontide.metainfo.bencode import (
    FILE_LIMITS,
    MAX_INTEGER,
    MIN_INTEGER,
    NETWORK_LIMITS,
    Limits,
    decode,
    decode_prefix,
    decode_with_span,
    encode,
)

values = st.recursive(
    st.binary(max_size=30) | st.integers(MIN_INTEGER, MAX_INTEGER),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=12), inner, max_size=5),
    max_leaves=25,
)
nearly = st.text("dlei0123456789:-ax", max_size=40).map(str.encode) | st.binary(max_size=60)

GOOD = [
    (b"0:", b""),
    (b"4:spam", b"spam"),
    (b"12:twelve bytes", b"twelve bytes"),
    (b"i0e", 0),
    (b"i-1e", -1),
    (b"i18446744073709551615e", MAX_INTEGER),
    (b"i-9223372036854775808e", MIN_INTEGER),
    (b"le", []),
    (b"de", {}),
    (b"l4:spami3ee", [b"spam", 3]),
    (b"d3:bar4:spam3:fooi42ee", {b"bar": b"spam", b"foo": 42}),
    (b"d0:lldeeee", {b"": [[{}]]}),
]
BAD = [
    (b"", "ends too soon"),
    (b"x", "no bencode"),
    (b"e", "no bencode"),
    (b" i1e", "no bencode"),
    (b"-1:a", "no bencode"),
    (b"i1e ", "1 bytes follow"),
    (b"i1ei2e", "3 bytes follow"),
    (b"5:spam", "ends too soon"),
    (b"4", "ends too soon"),
    (b"9999999999:a", "ends too soon"),
    (b"10000000000:a", "length of a string"),
    (b"01:a", "length of a string"),
    (b"00:", "length of a string"),
    (b"1_0:aaaaaaaaaa", "length of a string"),
    (b"1 :a", "length of a string"),
    (b"i", "not an integer"),
    (b"ie", "not an integer"),
    (b"i-e", "not an integer"),
    (b"i-0e", "not an integer"),
    (b"i00e", "not an integer"),
    (b"i01e", "not an integer"),
    (b"i-01e", "not an integer"),
    (b"i+1e", "not an integer"),
    (b"i1", "not an integer"),
    (b"i 1e", "not an integer"),
    (b"i1.0e", "not an integer"),
    (b"i18446744073709551616e", "64 bits"),
    (b"i-9223372036854775809e", "64 bits"),
    (b"i100000000000000000000e", "not an integer"),
    (b"l", "ends too soon"),
    (b"li1e", "ends too soon"),
    (b"d", "ends too soon"),
    (b"d1:a", "ends too soon"),
    (b"d1:ae", "without a value"),
    (b"di1ei1ee", "no string"),
    (b"dlelee", "no string"),
    (b"d1:ai1e1:ai2ee", "twice"),
    (b"d1:bi1e1:ai2ee", "not sorted"),
    (b"d1:bi1e2:aai2ee", "not sorted"),
]


class DecodeTests(SynchronousTestCase):
    """Known input."""

    def test_good(self) -> None:
        for data, value in GOOD:
            self.assertEqual(decode(data), value)
            self.assertEqual(encode(value), data)

    def test_bad(self) -> None:
        for data, reason in BAD:
            error = self.assertRaises(MetainfoError, decode, data)
            self.assertIn(reason, str(error), data)

    def test_cut_anywhere(self) -> None:
        data = encode({b"a": [1, -20, b"bytes", {}], b"key": {b"k": b"v" * 100}})
        for end in range(len(data)):
            self.assertRaises(MetainfoError, decode, data[:end])

    def test_any_order(self) -> None:
        """Old tools did not sort; keys that stand twice are never accepted."""
        self.assertEqual(decode(b"d1:bi1e1:ai2ee", any_order=True), {b"a": 2, b"b": 1})
        self.assertRaises(MetainfoError, decode, b"d1:ai1e1:bi1e1:ai2ee", any_order=True)


class LimitTests(SynchronousTestCase):
    """What a stranger can make us do."""

    def test_a_million_nested_lists_are_refused_at_once(self) -> None:
        for data in (b"l" * 10**6, b"l" * 10**6 + b"e" * 10**6, b"d1:a" * 10**6):
            started = time.perf_counter()
            self.assertRaises(MetainfoError, decode, data)
            self.assertLess(time.perf_counter() - started, 0.1)

    def test_depth(self) -> None:
        limits = Limits(depth=3, tokens=100)
        self.assertEqual(decode(b"llleee", limits), [[[]]])
        self.assertRaises(MetainfoError, decode, b"lllleeee", limits)
        self.assertRaises(MetainfoError, decode, b"lld1:aleeee", limits)

    def test_depth_counts_from_the_outermost(self) -> None:
        limits = Limits(depth=3, tokens=100)
        self.assertEqual(decode_with_span(b"d4:infolleee", limits=limits)[1], (7, 11))
        self.assertRaises(MetainfoError, decode_with_span, b"d4:infollleeee", limits=limits)

    def test_tokens(self) -> None:
        limits = Limits(depth=10, tokens=5)
        self.assertEqual(decode(b"l1:a1:bi1ee", limits), [b"a", b"b", 1])
        self.assertRaises(MetainfoError, decode, b"l1:a1:bi1ei2ee", limits)

    def test_tokens_with_span(self) -> None:
        limits = Limits(depth=10, tokens=6)
        self.assertEqual(decode_with_span(b"d1:a1:b4:infoi1ee", limits=limits)[0], {b"a": b"b", b"info": 1})
        fewer = Limits(depth=10, tokens=5)
        self.assertRaises(MetainfoError, decode_with_span, b"d1:a1:b4:infoi1ee", limits=fewer)
        self.assertRaises(MetainfoError, decode, b"d1:a1:b4:infoi1ee", fewer)
        self.assertRaises(
            MetainfoError, decode_with_span, b"d4:info" + b"l" + b"i1e" * 9 + b"ee", limits=limits
        )

    def test_limits_of_the_design(self) -> None:
        self.assertEqual((FILE_LIMITS.depth, FILE_LIMITS.tokens), (100, 2_500_000))
        self.assertEqual((NETWORK_LIMITS.depth, NETWORK_LIMITS.tokens), (16, 10_000))


class PrefixTests(SynchronousTestCase):
    """A value with bytes behind it, as in ut_metadata."""

    def test_end(self) -> None:
        for data, value in GOOD:
            self.assertEqual(decode_prefix(data + b"i5e behind"), (value, len(data)))

    def test_network_limits_by_default(self) -> None:
        self.assertRaises(MetainfoError, decode_prefix, b"l" * 17 + b"e" * 17)
        self.assertRaises(MetainfoError, decode_prefix, b"l" + b"0:" * 10_000 + b"e")


class SpanTests(SynchronousTestCase):
    """The raw bytes of ``info``."""

    def test_span(self) -> None:
        data = b"d1:a1:b4:infod4:infoi1ee1:zi1ee"
        value, (start, end) = decode_with_span(data)
        self.assertEqual(value, {b"a": b"b", b"info": {b"info": 1}, b"z": 1})
        self.assertEqual(data[start:end], b"d4:infoi1ee")

    def test_other_key(self) -> None:
        data = b"d1:rd2:id1:xee"
        value, (start, end) = decode_with_span(data, b"r")
        self.assertEqual((value, data[start:end]), ({b"r": {b"id": b"x"}}, b"d2:id1:xe"))

    def test_key_must_be_at_the_top(self) -> None:
        error = self.assertRaises(MetainfoError, decode_with_span, b"d1:ad4:infodeee")
        self.assertIn("no info", str(error))

    def test_bad(self) -> None:
        for data in (
            b"",
            b"d",
            b"le",
            b"d4:info",
            b"d4:infode",
            b"d4:infodee ",
            b"d4:infode4:infodee",
            b"d4:infode1:ai1ee",
            b"d4:infodei1ei1ee",
            b"di1e1:a4:infodee",
            b"dle1:a4:infodee",
        ):
            self.assertRaises(MetainfoError, decode_with_span, data)

    def test_raw_bytes_stay_as_they_are_in_any_order(self) -> None:
        data = b"d4:infod1:bi1e1:ai2ee3:agei1ee"
        value, (start, end) = decode_with_span(data, any_order=True)
        self.assertEqual(value[b"info"], {b"a": 2, b"b": 1})
        self.assertEqual(data[start:end], b"d1:bi1e1:ai2ee")


class EncodeTests(SynchronousTestCase):
    """What we write."""

    def test_keys_are_sorted_as_bytes(self) -> None:
        self.assertEqual(encode({b"b": 1, b"\xff": 2, b"B": 3, b"": 4}), b"d0:i4e1:Bi3e1:bi1e1:\xffi2ee")

    def test_buffers_and_tuples(self) -> None:
        self.assertEqual(encode((bytearray(b"a"), memoryview(b"bc"))), b"l1:a2:bce")

    def test_what_has_no_encoding_is_refused(self) -> None:
        for value in ("text", 1.5, None, True, {"a": 1}, {1: 2}, [None], {b"a": "text"}):
            self.assertRaises(TypeError, encode, value)

    def test_integers_we_would_not_read_are_refused(self) -> None:
        for value in (MAX_INTEGER + 1, MIN_INTEGER - 1):
            self.assertRaises(ValueError, encode, value)


class PropertyTests(SynchronousTestCase):
    """Anything at all."""

    @given(values)
    def test_round_trip(self, value: object) -> None:
        data = encode(value)
        self.assertEqual(decode(data), value)
        self.assertEqual(data, bencode2.bencode(value))
        self.assertEqual(bencode2.bdecode(data), value)

    @given(values, st.binary(max_size=20))
    def test_prefix(self, value: object, behind: bytes) -> None:
        data = encode(value)
        self.assertEqual(decode_prefix(data + behind, FILE_LIMITS), (value, len(data)))

    @given(values)
    def test_span(self, value: object) -> None:
        data = encode({b"a": value, b"info": value, b"z": [value]})
        found, (start, end) = decode_with_span(data)
        self.assertEqual(found, decode(data))
        self.assertEqual(data[start:end], encode(value))

    @given(nearly)
    def test_what_is_accepted_is_the_one_encoding(self, data: bytes) -> None:
        """Never another error; and strict means that there is one way to write a value."""
        try:
            value = decode(data)
        except MetainfoError:
            return
        self.assertEqual(encode(value), data)
        self.assertEqual(bencode2.bdecode(data), value)

    @given(values, st.data())
    def test_damage(self, value: object, data: st.DataObject) -> None:
        good = encode([value, {b"k": value}])
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
        for reader in (decode, decode_prefix, decode_with_span):
            try:
                found = reader(bad)
            except MetainfoError:
                continue
            if reader is decode:
                self.assertEqual(encode(found), bad)
