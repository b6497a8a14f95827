"""Temporary folders for tests that write files."""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase


class FolderTestCase(SynchronousTestCase):
    """A test case whose ``mktemp`` leaves nothing behind, and nothing in the working directory."""

    def mktemp(self) -> str:
        """Return a path at which there is nothing yet."""
        folder = tempfile.mkdtemp(prefix="irontide-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return os.path.join(folder, "temp")
