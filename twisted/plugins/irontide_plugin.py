"""Tells twistd of irontide.  Every twistd run reads this file, so it does nothing else."""

from twisted.application.service import ServiceMaker

irontide = ServiceMaker(
    "irontide",
    "irontide.service.standalone",
    "A BitTorrent engine.",
    "irontide",
)
