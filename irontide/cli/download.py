"""``irontide download``: one torrent, to its end."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import click
from twisted.internet.defer import Deferred

from irontide.cli.arguments import SettingType, carry_out, common, request_of
from irontide.cli.progress import Reporter
from irontide.cli.run import DONE, Interrupted, Interruption, Work
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


@click.command()
@click.argument("source")
@click.option("--to", "folder", default=".", type=click.Path(file_okay=False), help="Download into it.")
@click.option("--seed", is_flag=True, help="Go on seeding when the download is complete, until Ctrl-C.")
@click.option("--max-download", type=SettingType("download_rate"), help="At most so fast: '10 MiB/s'.")
@common
def download(source: str, folder: str, seed: bool, **options: Any) -> None:
    """
    Download what SOURCE, a .torrent file or the http(s) URL of one, is about.

    Ctrl-C saves, and the same command goes on from there. Files that are there already are checked, not
    overwritten. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    request = request_of(source, os.path.abspath(folder), options)

    def work(reporter: Reporter) -> Work:
        return partial(download_one, request=request, seed=seed, reporter=reporter)

    carry_out(work, request, **{name: options[name] for name in ("as_json", "quiet", "verbose")})


async def download_one(
    reactor: Any,
    interruption: Interruption,
    *,
    request: Request,
    seed: bool,
    reporter: Reporter,
    parts: Parts = REAL,
) -> int:
    """
    Do what ``irontide download`` promises, and return its exit code.

    :raises IrontideError, OSError: it failed.
    :raises Interrupted: the user did not wait for the end.
    """
    limit = settings_for(request).max_torrent_file
    loading = Deferred.fromCoroutine(load(parts.make_fetcher(reactor), request.source, limit))
    torrent_file = await interruption.or_result(loading)
    peers = await resolve(reactor, request.peers, interruption)

    async def body(session: Any) -> int:
        torrent = await add_or_continue(session, torrent_file, request.folder, peers, reporter)
        with Reporting(reactor, torrent, reporter, interruption) as reporting:
            await reporting.until(torrent.when_complete())
            reporter.complete(torrent.status())
            if seed:
                await seed_until_interrupted(reporting)
        return DONE

    try:
        return await in_session(reactor, settings_for(request, torrent_file.info.infohash), body, parts)
    except Interrupted:
        reporter.interrupted("stopped; the same command goes on from here")
        raise
