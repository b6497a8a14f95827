"""irontide download and irontide seed, with a session that does as the test says."""

from __future__ import annotations

import os
from typing import Any

import attrs
from click.testing import CliRunner
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail

from irontide.cli.arguments import request_of
from irontide.cli.download import download, download_one
from irontide.cli.run import Interrupted, Interruption
from irontide.cli.seed import seed, seed_one
from irontide.cli.transfer import Request, settings_for, state_of
from irontide.errors import IrontideError, StateInUse, StorageError
from irontide.metainfo.torrent_file import TorrentFile
from irontide.torrent.options import TorrentOptions
from irontide.values import PeerAddress
from tests.cli.fakes import (
    CHECKING,
    COMPLETE,
    RUNNING,
    FakeReactor,
    FakeSession,
    FakeTorrent,
    Remembers,
    Resolver,
    write,
)
from tests.session.fakes import torrent_file
from tests.temporary import FolderTestCase

DATA, INFOHASH = torrent_file(b"name")


class TransferCase(FolderTestCase):
    """A folder, a .torrent and a session."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.source = write(os.path.join(self.folder, "name.torrent"), DATA)
        self.reactor = FakeReactor()
        self.session = FakeSession()
        self.reporter = Remembers()
        self.interruption = Interruption()
        self.request = Request(self.source, self.folder)
        self.parts = self.session.parts()

    def known(self, folder: str, **options: Any) -> FakeTorrent:
        """Let the state have the torrent already."""
        torrent = FakeTorrent(TorrentFile.from_bytes(DATA), folder, TorrentOptions(**options))
        self.session.torrents[INFOHASH] = torrent
        return torrent

    def assertStopped(self) -> None:
        self.assertEqual(self.session.events[-1], "stop")
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class DownloadTests(TransferCase):
    """download_one."""

    def interrupt(self, done: Deferred[int]) -> None:
        """End a download that the test has seen enough of."""
        self.interruption.happen()
        self.failureResultOf(done, Interrupted)

    def download(self, *, seed: bool = False) -> Deferred[int]:
        return Deferred.fromCoroutine(
            download_one(
                self.reactor,
                self.interruption,
                request=self.request,
                seed=seed,
                reporter=self.reporter,
                parts=self.parts,
            )
        )

    def test_to_the_end(self) -> None:
        done = self.download()
        self.assertEqual(self.session.only.save_path, self.folder)
        self.reactor.advance(self.reporter.interval)
        self.assertNoResult(done)
        self.session.only.finish()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertEqual(self.reporter.kinds, ["started", "progress", "complete"])
        self.assertEqual(self.session.events, ["start", "add", "stop"])
        self.assertStopped()

    def test_interrupted_saves_and_says_how_to_go_on(self) -> None:
        done = self.download()
        self.interruption.happen()
        self.failureResultOf(done, Interrupted)
        self.assertEqual(self.reporter.kinds[-1], "interrupted")
        self.assertStopped()

    def test_seeds_until_interrupted(self) -> None:
        done = self.download(seed=True)
        self.session.only.finish()
        self.assertNoResult(done)
        self.interruption.happen()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertNotIn("interrupted", self.reporter.kinds)
        self.assertStopped()

    def test_disk_that_refuses_while_seeding(self) -> None:
        done = self.download(seed=True)
        self.session.only.finish()
        self.session.only.now = attrs.evolve(COMPLETE, phase="stopped", error="I/O error")
        self.reactor.advance(self.reporter.interval)
        self.assertIn("I/O error", str(self.failureResultOf(done, StorageError).value))
        self.assertStopped()

    def test_disk_that_refuses(self) -> None:
        done = self.download()
        self.session.only.completing.errback(StorageError("disk full"))
        self.failureResultOf(done, StorageError)
        self.assertStopped()

    def test_nobody_reads_the_output(self) -> None:
        """``irontide download x | head -1``"""

        def broken(status: object) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        self.reporter.progress = broken  # type: ignore[method-assign]
        done = self.download()
        self.reactor.advance(self.reporter.interval)
        self.failureResultOf(done, BrokenPipeError)
        self.assertStopped()

    def test_goes_on_where_it_was(self) -> None:
        torrent = self.known(self.folder)
        done = self.download()
        torrent.finish()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertNotIn("add", self.session.events)

    def test_to_another_folder_begins_anew_there(self) -> None:
        self.known("/elsewhere")
        done = self.download()
        self.assertEqual(self.session.events, ["start", "remove", "add"])
        self.assertEqual(self.session.only.save_path, self.folder)
        self.assertIn(("note", "it was in /elsewhere before; what is there stays there"), self.reporter.told)
        self.interrupt(done)

    def test_rebuilt_torrent_is_resumed(self) -> None:
        torrent = self.known(self.folder, paused=True)
        done = self.download()
        self.assertFalse(torrent.options.paused)
        self.interrupt(done)

    def test_state_in_use(self) -> None:
        """A second download of the same torrent."""
        self.parts = self.session.parts(lambda reactor, directory: fail(StateInUse(f"{directory} is in use")))
        error = self.failureResultOf(self.download(), StateInUse).value
        self.assertIn(INFOHASH.hex(), str(error))
        self.assertEqual(self.session.events, [])

    def test_start_that_fails(self) -> None:
        self.session.starting = fail(IrontideError("port in use"))
        self.failureResultOf(self.download(), IrontideError)

    def test_peers(self) -> None:
        self.reactor.nameResolver = Resolver({"peer.example": [IPv4Address("TCP", "192.0.2.7", 0)]})
        self.request = attrs.evolve(self.request, peers=(("::1", 5), ("peer.example", 6)))
        done = self.download()
        self.assertEqual(self.session.only.peers, [PeerAddress("::1", 5), PeerAddress("192.0.2.7", 6)])
        self.interrupt(done)

    def test_peers_of_a_download_that_goes_on(self) -> None:
        torrent = self.known(self.folder)
        self.request = attrs.evolve(self.request, peers=(("::1", 5),))
        done = self.download()
        self.assertEqual(torrent.peers, [])
        torrent.checking.callback(None)
        self.assertEqual(torrent.peers, [PeerAddress("::1", 5)])
        self.interrupt(done)

    def test_unknown_host(self) -> None:
        self.request = attrs.evolve(self.request, peers=(("nowhere.invalid", 6),))
        self.assertIn("nowhere.invalid", str(self.failureResultOf(self.download(), IrontideError).value))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class SeedTests(TransferCase):
    """seed_one."""

    def seed(self, *, incomplete: bool = False) -> Deferred[int]:
        return Deferred.fromCoroutine(
            seed_one(
                self.reactor,
                self.interruption,
                request=self.request,
                incomplete=incomplete,
                reporter=self.reporter,
                parts=self.parts,
            )
        )

    def put_data(self) -> None:
        write(os.path.join(self.folder, "name"), b"x")

    def test_checks_then_seeds_until_interrupted(self) -> None:
        self.put_data()
        done = self.seed()
        self.session.only.now = CHECKING
        self.reactor.advance(self.reporter.interval)
        self.session.only.now = COMPLETE
        self.session.only.checking.callback(None)
        self.assertNoResult(done)
        self.interruption.happen()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertEqual(self.reporter.kinds, ["started", "progress", "complete"])
        self.assertStopped()

    def test_missing_data_is_refused_before_anything_is_written(self) -> None:
        error = self.failureResultOf(self.seed(), StorageError).value
        self.assertIn(os.path.join(self.folder, "name"), str(error))
        self.assertEqual(self.session.events, [])

    def test_wrong_data_is_refused(self) -> None:
        self.put_data()
        done = self.seed()
        self.session.only.checking.callback(None)
        self.assertIn("--partial", str(self.failureResultOf(done, StorageError).value))
        self.assertStopped()

    def test_partial_seeds_and_downloads_the_rest(self) -> None:
        done = self.seed(incomplete=True)
        self.session.only.now = RUNNING
        self.session.only.checking.callback(None)
        self.assertNoResult(done)
        self.interruption.happen()
        self.assertEqual(self.successResultOf(done), 0)

    def test_interrupted_during_the_check(self) -> None:
        self.put_data()
        done = self.seed()
        self.interruption.happen()
        self.failureResultOf(done, Interrupted)
        self.assertStopped()


class SettingsTests(FolderTestCase):
    """What the session of a command is set to."""

    def setUp(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IRONTIDE_")}
        self.patch(os, "environ", {**clean, "XDG_STATE_HOME": "/xdg"})

    def request(self, **options: Any) -> Request:
        said = {"max_upload": None, "addresses": None, "port": None, "peers": (), **options}
        return request_of("x", "/data", said)

    def test_state_is_per_torrent(self) -> None:
        self.assertEqual(state_of(INFOHASH), f"/xdg/irontide/downloads/{INFOHASH.hex()}")

    def test_defaults(self) -> None:
        got = settings_for(self.request(), INFOHASH)
        self.assertEqual((got.listen_port, got.listen_next_port), (6881, True))
        self.assertEqual((got.downloads, got.state), ("/data", state_of(INFOHASH)))

    def test_port_that_was_asked_for_is_the_one(self) -> None:
        got = settings_for(self.request(port=7000))
        self.assertEqual((got.listen_port, got.listen_next_port), (7000, False))

    def test_limits(self) -> None:
        got = settings_for(self.request(max_download=5, max_upload=6))
        self.assertEqual((got.download_rate, got.upload_rate), (5, 6))

    def test_environment_counts_but_not_for_folders(self) -> None:
        os.environ.update(IRONTIDE_UPLOAD_RATE="7", IRONTIDE_STATE="/no", IRONTIDE_DOWNLOADS="/no")
        got = settings_for(self.request(), INFOHASH)
        self.assertEqual((got.upload_rate, got.downloads, got.state), (7, "/data", state_of(INFOHASH)))


class UsageTests(FolderTestCase):
    """Exit code 2, before anything runs."""

    def code(self, command: Any, *arguments: str) -> int:
        return CliRunner().invoke(command, list(arguments)).exit_code

    def test_wrong_usage(self) -> None:
        for arguments in (
            (),
            ("x", "--bogus"),
            ("x", "--port", "99999"),
            ("x", "--max-download", "fast"),
            ("x", "--peer", "nohost"),
            ("x", "--peer", "::1:5"),
            ("x", "--peer", "host:0"),
            ("x", "--peer", "host:70000"),
            ("x", "--listen", "localhost"),
        ):
            self.assertEqual(self.code(download, *arguments), 2, arguments)
        self.assertEqual(self.code(seed, "x", "--from", self.mktemp()), 2)

    def test_wrong_environment(self) -> None:
        result = CliRunner(env={"IRONTIDE_UPLOAD_RATE": "fast"}).invoke(download, ["x"])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("IRONTIDE_UPLOAD_RATE", result.output)

    def test_help(self) -> None:
        for command in (download, seed):
            self.assertEqual(self.code(command, "--help"), 0)
