"""``irontide seed``: give to others what is there."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import click
from twisted.internet.defer import Deferred

from irontide.cli.arguments import carry_out, common, request_of
from irontide.cli.progress import Reporter
from irontide.cli.run import DONE, Interruption, Work
from irontide.cli.source import load
from irontide.cli.transfer import (
    REAL,
    Parts,
    Reporting,
    Request,
    add_or_continue,
    in_session,
    resolve,
    seed_until_interrupted,
    settings_for,
)
from irontide.errors import StorageError
from irontide.metainfo.info import Info

_FOLDER = click.Path(exists=True, file_okay=False)


@click.command()
@click.argument("source")
@click.option("--from", "folder", default=".", type=_FOLDER, help="The data is in this folder.")
@click.option("--partial", "incomplete", is_flag=True, help="Seed what is there, download what is missing.")
@common
def seed(source: str, folder: str, incomplete: bool, **options: Any) -> None:
    """
    Seed what SOURCE, a .torrent file or the http(s) URL of one, is about, until Ctrl-C.

    The data has to be complete, below the folder, under the names that the torrent gives it; it is checked
    first. Without --partial nothing is written there, and incomplete or wrong data is an error. Exit codes:
    0 seeded until Ctrl-C, 1 failed, 2 wrong usage, 130 interrupted before the check was done.
    """
    request = request_of(source, os.path.abspath(folder), options)

    def work(reporter: Reporter) -> Work:
        return partial(seed_one, request=request, incomplete=incomplete, reporter=reporter)

    carry_out(work, request, **{name: options[name] for name in ("as_json", "quiet", "verbose")})


async def seed_one(
    reactor: Any,
    interruption: Interruption,
    *,
    request: Request,
    incomplete: bool,
    reporter: Reporter,
    parts: Parts = REAL,
) -> int:
    """
    Do what ``irontide seed`` promises, and return its exit code.

    :raises IrontideError, OSError: it failed.
    :raises Interrupted: the user ended it before the data was checked.
    """
    limit = settings_for(request).max_torrent_file
    loading = Deferred.fromCoroutine(load(parts.make_fetcher(reactor), request.source, limit))
    torrent_file = await interruption.or_result(loading)
    info = torrent_file.info
    if not incomplete:
        look = partial(missing_files, info, request.folder)
        missing = await parts.in_thread(reactor, look)
        if missing:
            raise StorageError(_not_complete(missing))
    peers = await resolve(reactor, request.peers, interruption)

    async def body(session: Any) -> int:
        torrent = await add_or_continue(session, torrent_file, request.folder, peers, reporter)
        with Reporting(reactor, torrent, reporter, interruption) as reporting:
            await reporting.until(torrent.when_checked())
            if not (torrent.complete or incomplete):
                have = torrent.status().have_bytes
                raise StorageError(
                    f"{info.total - have} of {info.total} bytes in {request.folder} are not what the torrent "
                    "says; --partial seeds the rest and downloads these"
                )
            if torrent.complete:
                reporter.complete(torrent.status())
            await seed_until_interrupted(reporting)
        return DONE

    return await in_session(reactor, settings_for(request, info.infohash, "seeds"), body, parts)


def missing_files(info: Info, folder: str) -> list[str]:
    """The paths of files that are not there or too short; runs in a thread."""
    missing = []
    for file in info.files:
        path = os.path.join(folder, *file.path)
        try:
            size = 0 if file.pad else os.stat(path).st_size
        except OSError:
            missing.append(path)
        else:
            if not file.pad and size < file.length:
                missing.append(path)
    return missing


def _not_complete(missing: list[str]) -> str:
    others = "" if len(missing) == 1 else f" and {len(missing) - 1} more"
    return f"not complete: {missing[0]}{others}; --partial seeds what is there and downloads the rest"
