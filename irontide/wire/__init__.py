"""The peer wire protocol (BEP 3, 6, 10), sans-I/O: bytes in, messages and blocks out."""
