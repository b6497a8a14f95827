"""Trackers: what is said to them, when, and to which of them.  Only service.py knows Twisted."""
