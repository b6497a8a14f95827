"""What a torrent is: .torrent files and their parts (BEP 3, 12, 27, 47), pure functions of bytes."""
