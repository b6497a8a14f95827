"""A BitTorrent engine on Twisted: run it as a daemon, or embed its Session in your own server."""

__version__ = "0.1.0"
