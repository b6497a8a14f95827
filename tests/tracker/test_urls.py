"""URLs: what is asked for, what is shown, where a redirect may lead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.errors import TrackerError
from irontide.tracker.urls import (
    MAX_URL,
    host_of,
    http_url,
    is_local,
    is_public,
    redirected,
    shown_url,
    without_secrets,
)

REFUSED = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://t.example/announce",
    "udp://t.example:80/announce",
    "javascript:alert(1)",
    "//t.example/announce",
    "announce",
    "",
    "http://",
    "http:///announce",
    "http://t.example:99999/",
    "http://t.example:x/",
    "http://[::1/announce",
    "http://user:secret@t.example/announce",
    "http://t.example/a b",
    "http://t.example/a\r\nX-Header: b",
    "http://t.example/\0",
    "http://t.example/" + "a" * MAX_URL,
    "http://t\u3000x\u00a8.example/",
    "http://t'.example/",
    "http://[fe80::1%25eth0]/",
    "http://" + "ü" * 70 + ".example/",
]


class HttpUrlTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """`file:` and whatever else is no web address, and nothing that could smuggle in a header."""
        for url in REFUSED:
            with self.assertRaises(TrackerError, msg=url):
                http_url(url)

    def test_errors_hold_no_secret(self) -> None:
        for url in REFUSED:
            try:
                http_url(url)
            except TrackerError as error:
                self.assertNotIn("secret", str(error))

    def test_written_in_ascii(self) -> None:
        for url, ascii_url in [
            ("http://t.example", "http://t.example/"),
            ("HTTP://T.Example:8080/Announce", "http://t.example:8080/Announce"),
            ("http://t.example/a%20b?x=%26&y=1#fragment", "http://t.example/a%20b?x=%26&y=1"),
            ("http://[2001:db8::1]:80/a", "http://[2001:db8::1]:80/a"),
            ("https://bücher.example/ü?ü", "https://xn--bcher-kva.example/%C3%BC?%C3%BC"),
        ]:
            self.assertEqual(http_url(url), ascii_url)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        for url in (text, f"http://{text}", f"http://t.example/{text}"):
            try:
                made = http_url(url)
            except TrackerError:
                continue
            self.assertTrue(made.isascii())
            self.assertNotIn(" ", made)
            self.assertEqual(http_url(made), made)
            host_of(made)
            is_local(made)

    @given(st.text())
    def test_anything_can_be_shown(self, text: str) -> None:
        shown_url(text)
        shown_url(f"http://{text}")


class RedirectTests(SynchronousTestCase):
    def test_followed(self) -> None:
        url = "http://t.example/x/announce?a=1"
        for location, target in [
            ("https://o.example/announce?a=1", "https://o.example/announce?a=1"),
            ("/y", "http://t.example/y"),
            ("y?b", "http://t.example/x/y?b"),
            ("//o.example/", "http://o.example/"),
        ]:
            self.assertEqual(redirected(url, location), target)

    def test_refused(self) -> None:
        for location in ["file:///etc/passwd", "gopher://t.example/", "http://[x/", "/a\r\nb", "a" * 3000]:
            with self.assertRaises(TrackerError, msg=location):
                redirected("http://t.example/", location)


class ShownTests(SynchronousTestCase):
    def test_only_scheme_and_host(self) -> None:
        for url, shown in [
            ("http://t.example/passkey/announce?key=secret#x", "http://t.example"),
            ("https://me:secret@t.example:8443/announce", "https://t.example:8443"),
            ("http://[2001:db8::1]/announce", "http://[2001:db8::1]"),
            ("http://[x", "(an invalid URL)"),
        ]:
            self.assertEqual(shown_url(url), shown)

    def test_repeated_secrets_are_taken_out(self) -> None:
        url = "http://t.example/0123456789abcdef/announce?auth=s%65cret-word&x=1"
        text = "0123456789abcdef is unknown, s%65cret-word or secret-word too; announce later"
        self.assertEqual(
            without_secrets(text, url),
            "(secret) is unknown, (secret) or (secret) too; announce later",
        )

    def test_host_has_one_spelling(self) -> None:
        for url, host in [
            ("http://T.Example./a", "t.example:80"),
            ("https://t.example/b", "t.example:443"),
            ("http://t.example:8080", "t.example:8080"),
        ]:
            self.assertEqual(host_of(url), host)


class AddressTests(SynchronousTestCase):
    def test_public(self) -> None:
        for host in ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"]:
            self.assertTrue(is_public(host), host)

    def test_not_public(self) -> None:
        for host in [
            "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
            "0.0.0.0", "224.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
            "::ffff:127.0.0.1", "::ffff:192.168.1.1", "64:ff9b::7f00:1", "2002:7f00:1::", "t.example", "",
        ]:  # fmt: skip
            self.assertFalse(is_public(host), host)

    def test_local_tracker(self) -> None:
        for url in ["http://127.0.0.1/", "http://[::1]:1/", "http://10.1.1.1/", "http://localhost/",
                    "http://nas:80/", "http://tracker.lan/"]:  # fmt: skip
            self.assertTrue(is_local(url), url)
        for url in ["http://t.example/", "http://8.8.8.8/", "http://localhost.example/"]:
            self.assertFalse(is_local(url), url)
