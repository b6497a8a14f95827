"""
A second address that is not loopback: Transmission refuses peers on 127.x.

With root there is a network namespace, joined to ours by a pair of virtual interfaces; without, the
address that this machine has anyway has to do.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Sequence

from attrs import frozen


@frozen
class Lan:
    """
    A network of two.

    :ivar outside: our address on it.
    :ivar inside: the address of what is started with ``prefix``.
    :ivar prefix: the command that starts a command inside.
    """

    outside: str
    inside: str
    prefix: tuple[str, ...] = ()
    namespace: str | None = None

    def remove(self) -> None:
        """Take it down; the interfaces go with the namespace."""
        if self.namespace is not None:
            _ip("netns", "delete", self.namespace)


def make_lan() -> Lan | None:
    """Return a network, or None if this machine has none to give."""
    return _namespace() or _own_address()


def _namespace() -> Lan | None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return None
    tag = f"{os.getpid() % 100000}{random.randrange(1000):03}"
    name, ours, theirs = f"irontide{tag}", f"irt{tag}", f"irtp{tag}"
    subnet = f"10.{random.randrange(200, 250)}.{random.randrange(256)}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError:
        return None
    try:
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        _ip("address", "add", f"{subnet}.1/24", "dev", ours)
        _ip("link", "set", ours, "up")
        for words in (
            ("address", "add", f"{subnet}.2/24", "dev", theirs),
            ("link", "set", theirs, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", name, *words)
    except subprocess.CalledProcessError:
        _ip("netns", "delete", name)
        return None
    return Lan(f"{subnet}.1", f"{subnet}.2", ("ip", "netns", "exec", name), name)


def _own_address() -> Lan | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks the routing table
        except OSError:
            return None
        host = probe.getsockname()[0]
    return None if host.startswith("127.") else Lan(host, host)


def _ip(*words: str) -> Sequence[str]:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)
    return done.stdout.splitlines()
