"""The tracker service and the fetcher against a real server on loopback, good and bad."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.web.client import BrowserLikePolicyForHTTPS

from irontide.errors import FetchError
from irontide.tracker.service import TrackerService
from irontide.transport.fetch import Fetcher
from irontide.values import PeerAddress, Transferred
from tests.live.tracker_server import Swarm, Tracker

INFOHASH = bytes(range(0x1E, 0x32))
"""Has a blank, a plus, a percent sign and an ampersand among its bytes."""
PASSKEY = "0123456789abcdef0123456789abcdef"


class Announced:
    """A torrent to announce."""

    private = False

    def __init__(self, *tiers: list[str], infohash: bytes = INFOHASH, left: int = 10) -> None:
        self.infohash = infohash
        self.tiers = tiers
        self.left = left
        self.found: list[PeerAddress] = []

    def transferred(self) -> Transferred:
        return Transferred(1, 2, self.left)

    def wanted_peers(self) -> int:
        return 50

    def peers_found(self, addresses, source, near) -> None:
        self.found.extend(addresses)


def certificate(name: str) -> PrivateCertificate:
    """Make a certificate that nobody has signed, for ``name`` and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return PrivateCertificate.loadPEM(made.public_bytes(serialization.Encoding.PEM) + pem)


@pytest.fixture
def run() -> Iterator[Callable[..., Tracker]]:
    """Start trackers; they are stopped after the test."""
    running: list[Tracker] = []

    def start(how: str | None = None, **options) -> Tracker:
        tracker = Tracker(reactor, **options)
        tracker.start()
        tracker.misbehave(how)
        running.append(tracker)
        return tracker

    yield start
    for tracker in running:
        pytest_twisted.blockon(ensureDeferred(tracker.stop()))


@pytest.fixture
def service() -> Iterator[TrackerService]:
    """A service over the real client; it says goodbye after the test."""
    made = TrackerService(
        reactor, Fetcher(reactor), peer_id=b"-IT0100-abcdefghijkl", port=lambda: 6881, key="key"
    )
    yield made
    pytest_twisted.blockon(made.stop_all(1.0))


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something is true."""
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        await deferLater(reactor, 0.02)
    raise AssertionError("waited in vain")


def states(service: TrackerService) -> list[str]:
    return [status.state for status in service.status(INFOHASH)]


def fetch(tracker: Tracker, deadline: float = 5.0, **options) -> Deferred[bytes]:
    """Announce once, without the service."""
    url = f"{tracker.url}/{PASSKEY}?info_hash={'a' * 20}&port=1&left=1"
    return Fetcher(reactor, **options).fetch(url, deadline=deadline)


async def refusal(tracker: Tracker, deadline: float = 5.0, **options) -> str:
    """Return why a fetch failed, which holds no secret."""
    with pytest.raises(FetchError) as caught:
        await fetch(tracker, deadline, **options)
    assert PASSKEY not in str(caught.value)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_torrent_comes_and_goes(run, service):
    """Every event reaches the tracker once and in order, and the infohash byte for byte."""
    tracker = run()
    torrent = Announced([tracker.url])
    service.start(torrent, torrent.peers_found)
    await until(lambda: states(service) == ["working"])
    torrent.left = 0
    service.completed(INFOHASH)
    await until(lambda: len(tracker.announces) == 2)
    await service.stop(INFOHASH)
    assert tracker.events() == [b"started", b"completed", b"stopped"]
    first = tracker.announces[0]
    assert first.infohash == INFOHASH
    assert [first.arguments[name] for name in (b"uploaded", b"downloaded", b"left")] == [b"1", b"2", b"10"]
    assert tracker.swarms[INFOHASH].peers == {}


@pytest_twisted.ensureDeferred
async def test_peers_are_found(run, service):
    tracker = run()
    other = Announced([tracker.url])
    tracker.swarms[INFOHASH] = Swarm({("127.0.0.1", 7001): 0, ("::1", 7002): 5})
    service.start(other, other.peers_found)
    await until(lambda: other.found)
    assert other.found == [PeerAddress("127.0.0.1", 7001), PeerAddress("::1", 7002)]
    (status,) = service.status(INFOHASH)
    assert (status.seeds, status.leechers, status.peers) == (1, 2, 2)


@pytest_twisted.ensureDeferred
async def test_scrape(run, service):
    tracker = run()
    torrent = Announced([tracker.url])
    service.start(torrent, torrent.peers_found)
    await until(lambda: states(service) == ["working"])
    size = await service.scrape(INFOHASH)
    assert (size.seeds, size.leechers, size.downloaded) == (0, 1, 0)


@pytest.mark.parametrize("how", ["gzip", "redirect once", "http/1.0"])
@pytest_twisted.ensureDeferred
async def test_good_in_another_way(run, service, how):
    tracker = run(how)
    torrent = Announced([tracker.url])
    service.start(torrent, torrent.peers_found)
    await until(lambda: states(service) == ["working"])
    assert tracker.announces[0].infohash == INFOHASH


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("bomb", "the answer is larger than 1048576 bytes"),
        ("small bomb", "the answer unpacks to more than 100 times its size"),
        ("slow bomb", "the answer is larger than 1048576 bytes"),
        ("large", "the answer is larger than 1048576 bytes"),
        ("endless headers", "the connection ended before the answer did, or the answer is no HTTP"),
        ("no http", "the connection ended before the answer did, or the answer is no HTTP"),
        ("cut", "the connection ended before the answer did, or the answer is no HTTP"),
        ("loop", "redirected more than 5 times"),
        ("redirect to file", "redirected, but file: URLs are not supported"),
        ("redirect to nowhere", "redirected to nowhere"),
        ("404", "HTTP status 404"),
        ("503", "HTTP status 503"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_answers_are_refused(run, how, why):
    tracker = run(how)
    assert await refusal(tracker) == why
    assert tracker.requests == (6 if how == "loop" else 1)


@pytest.mark.parametrize("how", ["silent", "drip"])
@pytest_twisted.ensureDeferred
async def test_the_deadline_is_for_all_of_it(run, how):
    tracker = run(how)
    began = reactor.seconds()
    assert await refusal(tracker, 0.3) == "no answer within 0.3 s"
    assert reactor.seconds() - began < 1.0


@pytest_twisted.ensureDeferred
async def test_dead_tracker(run):
    tracker = run()
    url = tracker.url
    await tracker.stop()
    with pytest.raises(FetchError, match="connection refused"):
        await Fetcher(reactor).fetch(url, deadline=5.0)


@pytest_twisted.ensureDeferred
async def test_untrusted_certificate_is_refused(run):
    tracker = run(certificate=certificate("localhost"))
    assert (await refusal(tracker)).startswith("TLS failed")
    assert tracker.requests == 0


@pytest_twisted.ensureDeferred
async def test_certificate_for_another_name_is_refused(run):
    made = certificate("tracker.example")
    tracker = run(certificate=made)
    url = tracker.url.replace("127.0.0.1", "localhost")
    policy = BrowserLikePolicyForHTTPS(Certificate(made.original))
    with pytest.raises(FetchError, match="TLS failed"):
        await Fetcher(reactor, policy).fetch(url, deadline=5.0)
    assert tracker.requests == 0


@pytest_twisted.ensureDeferred
async def test_trusted_certificate(run):
    made = certificate("localhost")
    tracker = run(certificate=made)
    policy = BrowserLikePolicyForHTTPS(Certificate(made.original))
    assert b"interval" in await fetch(tracker, policy=policy)


@pytest_twisted.ensureDeferred
async def test_no_tls_is_refused(run):
    tracker = run()
    with pytest.raises(FetchError):
        await Fetcher(reactor).fetch(tracker.url.replace("http:", "https:"), deadline=0.3)
    assert tracker.requests == 0


@pytest_twisted.ensureDeferred
async def test_cancelling_closes_the_connection(run):
    """Nothing is left in the reactor; the fixture for all tests looks after that."""
    fetching = fetch(run("silent"))
    await deferLater(reactor, 0.1)
    fetching.cancel()
    with pytest.raises(FetchError, match="cancelled"):
        await fetching


@pytest_twisted.ensureDeferred
async def test_the_next_tier_helps_out(run, service):
    """One tracker is dead, one sends garbage: the third is found at once."""
    dead, garbage, good = run(), run("garbage"), run()
    url = dead.url
    await dead.stop()
    torrent = Announced([url], [garbage.url], [good.url])
    service.start(torrent, torrent.peers_found)
    await until(lambda: states(service) == ["not working", "not working", "working"])
    assert good.events() == [b"started"]


@pytest_twisted.ensureDeferred
async def test_no_secret_in_log_or_status(run, service, logged_errors):
    """The passkey is in the URL, and the tracker repeats it: nobody else does."""
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    try:
        tracker = run("refuse")
        url = tracker.url.replace("/announce", f"/{PASSKEY}/announce?authkey={PASSKEY}")
        torrent = Announced([url])
        service.start(torrent, torrent.peers_found)
        await until(lambda: states(service) == ["not working"])
        tracker.misbehave("cut")
        service.reannounce(INFOHASH)
        await until(lambda: tracker.requests == 2 and states(service) == ["not working"])
    finally:
        globalLogPublisher.removeObserver(seen.append)
    assert seen
    text = "".join(formatEvent(event) + repr(event) for event in seen) + repr(service.status(INFOHASH))
    assert PASSKEY not in text


@pytest_twisted.ensureDeferred
async def test_goodbyes_are_given_up_in_time(run):
    """A tracker that falls silent does not hold up the end."""
    tracker = run()
    service = TrackerService(
        reactor, Fetcher(reactor), peer_id=b"-IT0100-abcdefghijkl", port=lambda: 6881, key="key"
    )
    torrents = [Announced([tracker.url], infohash=bytes([n]) * 20) for n in range(5)]
    for torrent in torrents:
        service.start(torrent, torrent.peers_found)
    await until(lambda: len(tracker.announces) == 5)
    tracker.misbehave("silent")
    began = reactor.seconds()
    await service.stop_all(0.3)
    assert reactor.seconds() - began < 1.0


@pytest_twisted.ensureDeferred
async def test_many_goodbyes(run):
    tracker = run()
    service = TrackerService(
        reactor, Fetcher(reactor), peer_id=b"-IT0100-abcdefghijkl", port=lambda: 6881, key="key"
    )
    torrents = [Announced([tracker.url], infohash=bytes([n]) * 20) for n in range(11)]
    for torrent in torrents:
        service.start(torrent, torrent.peers_found)
    await until(lambda: len(tracker.announces) == 11)
    await deferLater(reactor, 0.1)
    await service.stop_all(2.0)
    assert tracker.events() == [b"started"] * 11 + [b"stopped"] * 11
