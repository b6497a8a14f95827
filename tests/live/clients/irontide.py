"""irontide as a user runs it: its command line, in a process of its own."""

from __future__ import annotations

from tests.live.clients.base import Client


class Irontide(Client):
    """``python -m irontide``."""

    name = "irontide"
