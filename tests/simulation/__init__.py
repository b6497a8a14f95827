"""Whole swarms on one Clock, without a socket: virtual links with latency, rates and losses."""
