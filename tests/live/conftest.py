"""Fixtures that start real clients and end them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import require_client
from tests.live import torrents
from tests.live.clients import Client, Transmission
from tests.live.clients.transmission import PEER_PORT
from tests.live.lan import Lan, make_lan

Start = Callable[..., Client]


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan | None]:
    """A network that is not loopback, or None."""
    made = make_lan()
    yield made
    if made is not None:
        made.remove()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], torrents.Made]:
    """Torrents by kind, each made once."""
    done: dict[str, torrents.Made] = {}

    def get(kind: str) -> torrents.Made:
        if kind not in done:
            done[kind] = torrents.KINDS[kind](tmp_path_factory.mktemp(kind))
        return done[kind]

    return get


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path, lan: Lan | None) -> Iterator[Start]:
    """
    Make clients by class; each is stopped after the test, the last one first.

    With ``on_lan`` a client is where Transmission can meet it.
    """
    running: list[Client] = []

    def make(cls: type[Client], *, on_lan: bool = False, **options: object) -> Client:
        require_client(request, cls.name, cls.missing())
        if on_lan or cls is Transmission:
            require_client(request, Transmission.name, None if lan else "no address but loopback, no root")
            assert lan is not None
            if cls is Transmission:
                options |= {"lan": lan, "port": PEER_PORT + len(running)}
            else:
                options["host"] = lan.outside
        client = cls(tmp_path / f"{cls.name}-{len(running)}", **options)
        running.append(client)
        return client

    yield make
    for client in reversed(running):
        client.stop()
