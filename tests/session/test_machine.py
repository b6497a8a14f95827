"""What a session asks of the machine."""

from __future__ import annotations

import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from irontide.session.machine import boot_id, on_wall_clock


class MachineTests(SynchronousTestCase):
    def test_this_boot_is_one(self) -> None:
        self.assertEqual(boot_id(), boot_id())
        self.assertTrue(boot_id())

    def test_clocks_are_told_apart(self) -> None:
        clock = Clock()
        clock.advance(time.monotonic())
        self.assertFalse(on_wall_clock(clock))
        clock.advance(time.time() - clock.seconds())
        self.assertTrue(on_wall_clock(clock))
