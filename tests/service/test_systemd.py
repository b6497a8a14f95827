"""What systemd passes on; real sockets are in tests/live/test_daemon.py."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from irontide.service.systemd import initial_environment, passed_sockets


class PassedSocketsTests(SynchronousTestCase):
    """passed_sockets, as far as no socket is there."""

    def test_none(self) -> None:
        self.assertEqual(passed_sockets({}), [])

    def test_those_of_another_process(self) -> None:
        """A child that inherits the variables does not own the sockets."""
        self.assertEqual(passed_sockets({"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"}), [])

    def test_nonsense(self) -> None:
        for count in ("", "-1", "x", "1.5"):
            self.assertEqual(passed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}), [])


class InitialEnvironmentTests(SynchronousTestCase):
    """initial_environment."""

    def test_what_was_taken_out_is_still_there(self) -> None:
        before = initial_environment()
        self.assertIn("PATH", before)
        self.patch(os, "environ", dict(os.environ))
        del os.environ["PATH"]
        self.assertEqual(initial_environment(), before)
