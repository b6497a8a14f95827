"""``irontide create``: a .torrent file for a file or a folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import click
from attrs import frozen

from irontide import __version__
from irontide.cli.content import Content, find, hash_pieces
from irontide.cli.progress import printable
from irontide.cli.run import DONE, FAILED, INTERRUPTED, os_error
from irontide.errors import IrontideError, MetainfoError
from irontide.metainfo.create import build, check_tracker, check_web_seed, choose_piece_length
from irontide.metainfo.info import HASH_LENGTH, MAX_PIECE_LENGTH, MAX_PIECES, MIN_PIECE_LENGTH
from irontide.metainfo.torrent_file import LAST_SECOND, TorrentFile
from irontide.settings import human_size
from irontide.settings.kinds import Size


class PieceLengthType(click.ParamType[int]):
    """A size that is a power of two."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See ParamType."""
        try:
            length = Size(MIN_PIECE_LENGTH, MAX_PIECE_LENGTH).parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if length & (length - 1):
            self.fail(f"{value!r} is not a power of two", param, ctx)
        return length


class UrlsType(click.ParamType[tuple[str, ...]]):
    """One URL or, separated by commas, several, each of which ``check`` takes."""

    def __init__(self, name: str, check: Callable[[str], str]) -> None:
        self.name = name
        self._check = check

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """See ParamType."""
        try:
            return tuple(self._check(url) for url in str(value).split(",") if url)
        except MetainfoError as error:
            self.fail(str(error), param, ctx)


class UrlType(UrlsType):
    """One URL, commas and all."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """See ParamType."""
        try:
            return (self._check(str(value)),)
        except MetainfoError as error:
            self.fail(str(error), param, ctx)


@frozen
class Order:
    """What the user asked for."""

    path: str
    output: str
    piece_length: int | None
    private: bool
    tiers: tuple[tuple[str, ...], ...]
    web_seeds: tuple[str, ...]
    comment: str
    source: str
    force: bool


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write this file. [NAME.torrent]")
@click.option(
    "-t",
    "--tracker",
    "tiers",
    type=UrlsType("URL[,URL]", check_tracker),
    multiple=True,
    help="Announce to it; each --tracker is a tier of its own, URLs with commas between are one tier.",
)
@click.option("--private", is_flag=True, help="Peers may come from these trackers only.")
@click.option("--comment", default="", metavar="TEXT", help="For people to read.")
@click.option(
    "--web-seed", "seeds", type=UrlType("URL", check_web_seed), multiple=True, help="Has the files."
)
@click.option("--piece-length", type=PieceLengthType(), help="A power of two from '16 KiB' to '256 MiB'.")
@click.option("--source", default="", metavar="TEXT", help="Makes the infohash differ from other trackers'.")
@click.option("--force", is_flag=True, help="Replace the output file if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for programs.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def create(
    path: str, output: str | None, seeds: tuple[tuple[str, ...], ...], as_json: bool, quiet: bool, **rest: Any
) -> None:
    """
    Make a .torrent file for PATH, a file or a folder with all that is in it.

    Symbolic links are left out. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    if output is None:
        output = f"{os.path.basename(os.path.abspath(path))}.torrent"
    order = Order(path=path, output=output, web_seeds=tuple(seed for (seed,) in seeds), **rest)
    say = _ignore if quiet or as_json else partial(click.echo, err=True)
    bar = _bar if sys.stderr.isatty() and not (quiet or as_json) else _no_bar
    try:
        content, made = carry_out(order, say, bar)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (IrontideError, OSError) as error:
        text = os_error(error)
        click.echo(f"irontide: {printable(text)}", err=True)
        if as_json:
            click.echo(json.dumps({"error": text}))
        sys.exit(FAILED)
    if as_json:
        click.echo(json.dumps(_facts(order, content, made)))
    elif not quiet:
        click.echo(_summary(order, made))
    sys.exit(DONE)


def carry_out(
    order: Order,
    say: Callable[[str], object],
    bar: Callable[[int], AbstractContextManager[Callable[[int], object]]],
) -> tuple[Content, TorrentFile]:
    """
    Make the file.

    :param say: takes a line about what was left out.
    :param bar: gives, for a number of bytes, what is told of those that are done.
    :raises IrontideError, OSError: it could not be made; nothing was written.
    """
    if not order.force and os.path.lexists(order.output):
        raise MetainfoError(f"{order.output} is there already; --force replaces it")
    folder = os.path.dirname(order.output) or "."
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MetainfoError(f"cannot write into {folder}")  # before all is hashed for nothing
    content = find(order.path, os.path.realpath(order.output))
    for text in content.skipped:
        say(f"skipped {printable(text)}")
    length = order.piece_length or choose_piece_length(content.total)
    pieces = -(-content.total // length)
    if pieces > MAX_PIECES:
        raise MetainfoError(f"{pieces} pieces of {human_size(length)}; the most are {MAX_PIECES}")
    finish = partial(
        build,
        content.name,
        content.files,
        length,
        tiers=order.tiers,
        private=order.private,
        comment=order.comment,
        web_seeds=order.web_seeds,
        source=order.source,
        created_by=f"irontide/{__version__}",
        creation_date=_now(),
    )
    finish(bytes(HASH_LENGTH * pieces))  # what is wrong with the names is better known before the hour's work
    with bar(content.total) as progress:
        hashes = hash_pieces(content, length, progress)
    data = finish(hashes)
    write_atomically(order.output, data, replace=order.force)
    return content, TorrentFile.from_bytes(data)


def write_atomically(path: str, data: bytes, *, replace: bool) -> None:
    """
    Write a file so that it is never seen in part.

    :raises FileExistsError: it is there, and not to be replaced.
    :raises OSError: it could not be written.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _rename_to_new(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _rename_to_new(temporary: str, path: str) -> None:
    """Rename, but not over a file that appeared meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # this file system has no hard links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _now() -> int:
    """Seconds since 1970; SOURCE_DATE_EPOCH has a say, for reproducible builds."""
    said = os.environ.get("SOURCE_DATE_EPOCH", "")
    return min(int(said), LAST_SECOND) if re.fullmatch("[0-9]{1,12}", said) else int(time.time())


def _bar(total: int) -> AbstractContextManager[Callable[[int], object]]:
    return _Updates(total)


class _Updates:
    """click's progress bar, reduced to the function that moves it on."""

    def __init__(self, total: int) -> None:
        self._bar = click.progressbar(length=total, label="hashing", file=sys.stderr, show_pos=False)

    def __enter__(self) -> Callable[[int], object]:
        return self._bar.__enter__().update

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)


def _no_bar(total: int) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(_ignore)


def _ignore(_: object) -> None:
    pass


def _facts(order: Order, content: Content, made: TorrentFile) -> dict[str, Any]:
    info = made.info
    return {
        "path": order.output,
        "infohash": info.infohash.hex(),
        "name": info.name,
        "total": info.total,
        "files": len(info.files),
        "pieces": info.layout.pieces,
        "piece_length": info.piece_length,
        "private": info.private,
        "trackers": made.tiers,
        "skipped": content.skipped,
    }


def _summary(order: Order, made: TorrentFile) -> str:
    info = made.info
    files = "1 file" if len(info.files) == 1 else f"{len(info.files)} files"
    return (
        f"{printable(order.output)}: {files}, {human_size(info.total)} in {info.layout.pieces} pieces"
        f" of {human_size(info.piece_length)}\ninfohash {info.infohash.hex()}"
    )
