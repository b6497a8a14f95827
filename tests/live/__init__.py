"""Real sockets, files, processes and clients; the only tests that may wait for the clock on the wall."""
