"""
The extension messages (BEP 10) that we understand, a file for each.

A row in EXTENSIONS is all that the handshake needs: the name, and the id under which peers are to send it.
"""

from __future__ import annotations

from irontide.extensions import lt_donthave, upload_only

EXTENSIONS = {extension.NAME: number for number, extension in enumerate((upload_only, lt_donthave), start=1)}
