"""Side by side with libtorrent: see ``python -m bench --help`` and docs/benchmarks.rst."""
