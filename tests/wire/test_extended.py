"""The extension handshake, BEP 10: strict about its bounds, lenient about its fields."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import ProtocolViolation
from irontide.metainfo.bencode import encode
from irontide.wire.extended import (
    MAX_CLIENT,
    MAX_EXTENSIONS,
    MAX_METADATA_SIZE,
    MAX_NAME,
    MAX_REQQ,
    ExtendedHandshake,
    packed_address,
)

FULL = ExtendedHandshake(
    messages={"ut_metadata": 3, "lt_donthave": 7},
    port=6881,
    client="irontide 0.1",
    reqq=500,
    yourip=b"\x01\x02\x03\x04",
    metadata_size=31235,
    upload_only=True,
)
FULL_PAYLOAD = (
    b"d1:md11:lt_donthavei7e11:ut_metadatai3ee13:metadata_sizei31235e1:pi6881e4:reqqi500e"
    b"11:upload_onlyi1e1:v12:irontide 0.16:yourip4:\x01\x02\x03\x04e"
)

values = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=8), inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from([b"m", b"p", b"v", b"reqq", b"yourip", b"metadata_size", b"upload_only", b"ipv6"])


def read(**fields: Any) -> ExtendedHandshake:
    """The handshake with these fields."""
    return ExtendedHandshake.from_payload(encode({key.encode(): value for key, value in fields.items()}))


class ExtendedHandshakeTests(SynchronousTestCase):
    def test_write(self) -> None:
        self.assertEqual(FULL.to_payload(), FULL_PAYLOAD)

    def test_read(self) -> None:
        self.assertEqual(ExtendedHandshake.from_payload(FULL_PAYLOAD), FULL)

    def test_nothing_said(self) -> None:
        self.assertEqual(ExtendedHandshake.from_payload(b"de"), ExtendedHandshake())
        self.assertEqual(ExtendedHandshake().to_payload(), b"d1:mdee")

    def test_example_of_the_bep(self) -> None:
        payload = b"d1:md11:LT_metadatai1e6:\xb5T_PEXi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e"
        found = ExtendedHandshake.from_payload(payload)
        self.assertEqual(found.messages, {"LT_metadata": 1, "\ufffdT_PEX": 2})
        self.assertEqual((found.port, found.client), (6881, "µTorrent 1.2"))

    def test_keys_in_any_order(self) -> None:
        found = ExtendedHandshake.from_payload(b"d1:v1:x1:pi5e1:mdee")
        self.assertEqual((found.port, found.client), (5, "x"))

    def test_no_dictionary_is_a_violation(self) -> None:
        for payload in (
            b"",
            b"x",
            b"le",
            b"i1e",
            b"0:",
            b"d",
            b"d1:p",
            b"d1:pi1e1:pi2ee",
            b"dex",
            b"l" * 10000,
        ):
            with self.assertRaises(ProtocolViolation):
                ExtendedHandshake.from_payload(payload)

    def test_too_many_tokens_is_a_violation(self) -> None:
        with self.assertRaises(ProtocolViolation):
            ExtendedHandshake.from_payload(b"d1:ml" + b"0:" * 10000 + b"ee")

    def test_port(self) -> None:
        for value, port in ((0, None), (1, 1), (65535, 65535), (65536, None), (-1, None), (b"5", None)):
            self.assertEqual(read(p=value).port, port, value)

    def test_reqq(self) -> None:
        for value, reqq in (
            (0, None), (-5, None), (1, 1), (MAX_REQQ, MAX_REQQ), (MAX_REQQ + 1, MAX_REQQ),
            (2**64 - 1, MAX_REQQ), (b"250", None), ([], None),
        ):  # fmt: skip
            self.assertEqual(read(reqq=value).reqq, reqq, value)

    def test_metadata_size(self) -> None:
        """Regressions of other engines: -1, 0, 2^31."""
        for value, size in (
            (-1, None), (0, None), (1, 1), (MAX_METADATA_SIZE, MAX_METADATA_SIZE),
            (MAX_METADATA_SIZE + 1, None), (2**31, None), (b"1", None),
        ):  # fmt: skip
            self.assertEqual(read(metadata_size=value).metadata_size, size, value)

    def test_yourip(self) -> None:
        for length in range(20):
            self.assertEqual(read(yourip=bytes(length)).yourip, bytes(length) if length in (4, 16) else None)
        self.assertIsNone(read(yourip=4).yourip)

    def test_upload_only(self) -> None:
        for value, upload_only in ((0, False), (1, True), (2, None), (b"1", None)):
            self.assertEqual(read(upload_only=value).upload_only, upload_only)

    def test_client_is_cut_and_printable(self) -> None:
        self.assertEqual(read(v=b"x" * 5000).client, "x" * MAX_CLIENT)
        self.assertEqual(read(v=b"\x1b[2J\n\xff").client, "\ufffd[2J\ufffd\ufffd")
        self.assertEqual(read(v="\u202eevil".encode()).client, "\ufffdevil")
        self.assertEqual(read(v=5).client, "")

    def test_extensions_of_wrong_kind_are_left_out(self) -> None:
        messages = {
            b"a": 1,
            b"b": b"2",
            b"c": 256,
            b"d": -1,
            b"e": 0,
            b"f": 255,
            b"g": [1],
            b"x" * (MAX_NAME + 1): 4,
        }
        self.assertEqual(read(m=messages).messages, {"a": 1, "e": 0, "f": 255})
        self.assertEqual(read(m=[b"a", 1]).messages, {})

    def test_extensions_are_bounded(self) -> None:
        messages = {b"name%d" % number: number % 256 for number in range(1000)}
        self.assertEqual(len(read(m=messages).messages), MAX_EXTENSIONS)

    def test_a_later_handshake_adds(self) -> None:
        first = ExtendedHandshake(messages={"a": 1, "b": 2}, port=5, client="x", upload_only=False)
        later = ExtendedHandshake(messages={"b": 0, "c": 3}, upload_only=True)
        self.assertEqual(
            first.followed_by(later),
            ExtendedHandshake(messages={"a": 1, "b": 0, "c": 3}, port=5, client="x", upload_only=True),
        )
        self.assertEqual(later.followed_by(ExtendedHandshake(upload_only=False)).upload_only, False)

    def test_later_handshakes_do_not_add_without_bound(self) -> None:
        found = ExtendedHandshake()
        for round_ in range(3):
            found = found.followed_by(ExtendedHandshake({f"{round_} {n}": 1 for n in range(MAX_EXTENSIONS)}))
        self.assertEqual(len(found.messages), MAX_EXTENSIONS)

    def test_packed_address(self) -> None:
        self.assertEqual(packed_address("1.2.3.4"), b"\x01\x02\x03\x04")
        self.assertEqual(packed_address("::1"), bytes(15) + b"\x01")

    @given(st.dictionaries(keys, values))
    def test_any_dictionary_is_read_and_can_be_written(self, fields: dict[bytes, Any]) -> None:
        found = ExtendedHandshake.from_payload(encode(fields))
        self.assertEqual(ExtendedHandshake.from_payload(found.to_payload()), found)

    @given(st.binary() | st.binary().map(lambda data: b"d" + data))
    def test_any_bytes_are_read_or_a_violation(self, payload: bytes) -> None:
        with contextlib.suppress(ProtocolViolation):
            ExtendedHandshake.from_payload(payload)
