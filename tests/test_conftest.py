"""The checks of conftest.py do catch what they are for: each of these small files of tests must not pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

LOST = """
from twisted.internet.defer import fail
def test():
    fail(ValueError("lost"))
"""
LOGGED = """
from twisted.logger import Logger
from twisted.python.failure import Failure
def test():
    Logger().failure("logged", Failure(ValueError("lost")))
"""
TIMED_CALL = """
from twisted.internet import reactor
def test():
    reactor.callLater(100, print)
"""
SOCKET = """
from twisted.internet import reactor
from twisted.internet.protocol import Factory
def test():
    reactor.listenTCP(0, Factory(), interface="127.0.0.1")
"""
CLIENT = """
from tests.conftest import require_client
def test(request):
    require_client(request, "utopia", "not built yet")
"""
FLUSHED = """
from twisted.logger import Logger
from twisted.python.failure import Failure
def test(logged_errors):
    Logger().failure("expected", Failure(ValueError()))
    assert len(logged_errors.flush(ValueError)) == 1
"""


def run(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one file of tests under our conftest."""
    tests = folder / "tests"
    tests.mkdir()
    (tests / "__init__.py").touch()
    (tests / "conftest.py").write_text(CONFTEST.read_text())
    (tests / "test_it.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LOST, "ValueError: lost"),
        (LOGGED, "ValueError: lost"),
        (TIMED_CALL, "timed call"),
        (SOCKET, "open in the reactor"),
    ],
    ids=["lost in a Deferred", "logged", "timed call", "socket"],
)
def test_caught(tmp_path: Path, text: str, told: str) -> None:
    done = run(tmp_path, text)
    assert done.returncode == 1
    assert told in done.stdout


def test_expected_errors_can_be_flushed(tmp_path: Path) -> None:
    assert run(tmp_path, FLUSHED).returncode == 0


def test_missing_client_is_told_at_the_end(tmp_path: Path) -> None:
    done = run(tmp_path, CLIENT)
    assert done.returncode == 0
    assert "MISSING, 1 live tests NOT RUN: utopia: not built yet" in done.stdout


def test_missing_client_is_a_failure_where_it_is_required(tmp_path: Path) -> None:
    done = run(tmp_path, CLIENT, IRONTIDE_REQUIRE_CLIENTS="1")
    assert done.returncode == 1
    assert "utopia is required here" in done.stdout
