"""
What a daemon tells systemd, and the sockets that it gets from it (sd_notify(3), sd_listen_fds(3)).

A datagram to a socket named in the environment is all there is to it; no library is needed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from twisted.logger import Logger

FIRST_DESCRIPTOR = 3
MAX_DESCRIPTORS = 64


class Notifier:
    """Tells the service manager how the daemon is; does nothing where there is none."""

    _log = Logger()

    def __init__(self, environment: Mapping[str, str]) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL of the abstract namespace.
        self._address = "\0" + name[1:] if name.startswith("@") else name

    def tell(self, **facts: str | int) -> None:
        """Send facts such as ``READY=1`` or ``STATUS="..."`` in one message."""
        if not self._address.startswith(("/", "\0")):
            return
        message = "".join(f"{name}={str(value).replace(chr(10), ' ')}\n" for name, value in facts.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError as error:
            self._log.warn("the service manager was not told: {error}", error=error)


def initial_environment() -> dict[str, str]:
    """
    The environment that this process was started with.

    Not os.environ: importing twisted.internet.endpoints, which nearly everything does, takes the variables
    of socket activation out of it (and loses the sockets if they have no names).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = os.fsdecode(file.read()).split("\0")
    except OSError:
        return dict(os.environ)
    return {name: value for name, equals, value in (pair.partition("=") for pair in pairs) if equals}


def passed_sockets(environment: Mapping[str, str], pid: int | None = None) -> list[int]:
    """Return the descriptors of the sockets that were passed on to this process; no child inherits them."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid() if pid is None else pid) or not count.isdigit():
        return []
    found = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + min(int(count), MAX_DESCRIPTORS)):
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            break
        found.append(descriptor)
    return found
