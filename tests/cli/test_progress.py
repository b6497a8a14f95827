"""What is shown, on a terminal, in a log and to programs."""

from __future__ import annotations

import io
import json

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from irontide.cli.progress import Bar, Json, Lines, Reporter, describe, draw, duration, percent, printable
from tests.cli.fakes import CHECKING, COMPLETE, RUNNING

FACTS = {"name": "a\x1b[31m", "infohash": "00", "total": 1024, "path": "/there", "listening": "0.0.0.0:6881"}


class TextTests(SynchronousTestCase):
    """The words."""

    def test_running(self) -> None:
        self.assertEqual(describe(RUNNING), "50.0% of 1 KiB, down 2 KiB/s, up 0 B/s, 2 peers, 1:05 left")
        unknown = attrs.evolve(RUNNING, eta=None, peers=1)
        self.assertEqual(describe(unknown), "50.0% of 1 KiB, down 2 KiB/s, up 0 B/s, 1 peer")

    def test_other_phases(self) -> None:
        self.assertEqual(describe(CHECKING), "checking 50.0%")
        self.assertEqual(describe(COMPLETE), "seeding, up 0 B/s, 0 B sent, 2 peers")
        self.assertEqual(describe(attrs.evolve(RUNNING, phase="stopped", error="full")), "stopped: full")

    def test_100_percent_only_when_nothing_is_missing(self) -> None:
        nearly = attrs.evolve(RUNNING, have_bytes=10**12 - 1, wanted_bytes=10**12)
        self.assertEqual(percent(nearly), "99.9%")
        self.assertEqual(percent(attrs.evolve(nearly, have_bytes=10**12)), "100.0%")

    def test_nothing_wanted(self) -> None:
        self.assertEqual(percent(attrs.evolve(RUNNING, wanted_bytes=0)), "100.0%")

    def test_duration(self) -> None:
        self.assertEqual(
            [duration(s) for s in (0, 59.6, 3599, 3600, 86400, 200_000, 1e300)],
            ["0:00", "1:00", "59:59", "1:00:00", "24:00:00", "2 d", "11574 d"],
        )

    def test_terminal_is_safe_from_names(self) -> None:
        self.assertEqual(printable("a\x1b[2J\u202e\nb \u00fc"), "a?[2J??b \u00fc")

    @given(st.text(max_size=60).map(printable), st.integers(0, 200), st.floats(0, 1))
    def test_bar_fits(self, name: str, width: int, share: float) -> None:
        status = attrs.evolve(RUNNING, have_bytes=int(1024 * share))
        self.assertLessEqual(len(draw(name, status, width)), width)

    def test_bar(self) -> None:
        self.assertIn("name [##########", draw("name", RUNNING, 200))
        self.assertNotIn("[", draw("name", RUNNING, 70))


class ReporterTests(SynchronousTestCase):
    """Each reporter, through a whole download."""

    def shown(self, kind: type[Reporter], *more: object) -> tuple[str, str]:
        out, errors = io.StringIO(), io.StringIO()
        reporter = kind(out, errors, *more)
        reporter.started(**FACTS)
        reporter.progress(RUNNING)
        reporter.note("by the way")
        reporter.complete(COMPLETE)
        reporter.error("what a pity")
        return out.getvalue(), errors.getvalue()

    def test_quiet(self) -> None:
        self.assertEqual(self.shown(Reporter), ("", "irontide: what a pity\n"))

    def test_lines(self) -> None:
        out, errors = self.shown(Lines)
        self.assertEqual(
            out.splitlines(),
            [
                "a?[31m: 1 KiB in /there",
                "listening on 0.0.0.0:6881",
                describe(RUNNING),
                "by the way",
                "complete: 1 KiB",
            ],
        )
        self.assertEqual(errors, "irontide: what a pity\n")

    def test_bar_is_drawn_over_itself(self) -> None:
        out, _ = self.shown(Bar, lambda: 100)
        self.assertEqual(out.count("\n"), 5)
        self.assertIn("\r\x1b[K", out)
        self.assertNotIn("\x1b[31m", out)
        self.assertIn("\r\x1b[Kby the way\n", out)

    def test_json(self) -> None:
        """One object a line, exact numbers."""
        out, errors = self.shown(Json)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            [event["event"] for event in events], ["started", "progress", "note", "complete", "error"]
        )
        self.assertEqual(events[0]["name"], FACTS["name"])
        self.assertEqual((events[1]["have_bytes"], events[1]["eta"]), (512, 65.0))
        self.assertEqual(errors, "")
