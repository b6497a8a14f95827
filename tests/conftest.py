"""
What every test is held to, whether it remembers to check it or not.

A test fails when it leaves something behind in the global reactor (a timed call, a socket) or when an
error was lost: in a Deferred that nobody listened to (found by collecting garbage after each test), or in
the log.  trial does the latter for its own TestCases; here it is for all tests.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

FULL = os.environ.get("IRONTIDE_FULL") == "1"
REQUIRE_CLIENTS = os.environ.get("IRONTIDE_REQUIRE_CLIENTS") == "1"
GRACE = 0.5
"""Seconds that the reactor has after a test to finish what is closing."""

missing_key: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, database=None)
hypothesis.settings.register_profile("full", deadline=None, max_examples=1000, print_blob=True, database=None)
hypothesis.settings.load_profile("full" if FULL else "ci")


class LoggedErrors:
    """Observes the log and keeps the failures and critical events."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None or event.get("log_level") is LogLevel.critical:
            self._events.append(event)

    def flush(self, *errors: type[BaseException]) -> list[LogEvent]:
        """Return the events so far (only those of ``errors``, if given) and forget them."""
        taken, kept = [], []
        for event in self._events:
            failure = event.get("log_failure")
            (taken if not errors or (failure and failure.check(*errors)) else kept).append(event)
        self._events = kept
        return taken


def _text(event: LogEvent) -> str:
    failure = event.get("log_failure")
    return formatEvent(event) + ("" if failure is None else "\n" + failure.getTraceback())


def _left_behind(calls_before: set[object], files_before: set[object]) -> list[str]:
    left = [f"timed call: {call}" for call in reactor.getDelayedCalls() if call not in calls_before]
    files = {*reactor.getReaders(), *reactor.getWriters()}
    return left + [f"open in the reactor: {file}" for file in files - files_before]


@pytest.fixture(autouse=True)
def logged_errors(request: pytest.FixtureRequest) -> Iterator[LoggedErrors]:
    """Fail the test for lost errors and for what it left behind; a test may ``flush`` errors it expects."""
    observer = LoggedErrors()
    calls = set(reactor.getDelayedCalls())
    files = {*reactor.getReaders(), *reactor.getWriters()}
    globalLogPublisher.addObserver(observer)
    try:
        yield observer
        cls = getattr(request.node, "cls", None)
        if cls is not None and issubclass(cls, SynchronousTestCase):
            observer.flush()  # trial has judged those already, and has its own flushLoggedErrors
        left = _left_behind(calls, files)
        waited = 0.0
        while left and waited < GRACE:
            pytest_twisted.blockon(task.deferLater(reactor, 0.02))
            waited += 0.02
            left = _left_behind(calls, files)
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observer)
    lost = [f"error in the log: {_text(event)}" for event in observer.flush()]
    if left or lost:
        pytest.fail("\n".join(left + lost), pytrace=False)


@pytest.fixture(autouse=True, scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder, as trial does: ``mktemp`` of its TestCases makes files where it is."""
    here = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(here)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the list of missing clients, and say where the time goes."""
    config.stash[missing_key] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the reactor open what it keeps, and make the collection after each test cheap."""
    pytest_twisted.blockon(task.deferLater(reactor, 0))
    gc.collect()
    gc.freeze()


def require_client(
    request: pytest.FixtureRequest, name: str, reason: str | None, *, always: bool = False
) -> None:
    """
    Skip the test, to be told loudly at the end, if ``reason`` says why client ``name`` cannot run here.

    With IRONTIDE_REQUIRE_CLIENTS=1, as in CI, that is a failure.

    :param always: skip even there: for what a container may forbid, whatever is installed in it.
    """
    if reason is None:
        return
    request.config.stash[missing_key].setdefault(f"{name}: {reason}", []).append(request.node.nodeid)
    if REQUIRE_CLIENTS and not always:
        pytest.fail(f"{name} is required here: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say at the very end which clients were missing, so that nobody takes the run for a whole one."""
    for client, tests in config.stash[missing_key].items():
        terminalreporter.write_line(
            f"MISSING, {len(tests)} live tests NOT RUN: {client}", red=True, bold=True
        )
