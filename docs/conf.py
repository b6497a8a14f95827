"""Sphinx: ``python -m sphinx docs build/docs``."""

project = "irontide"
extensions: list[str] = []
exclude_patterns = ["newsfragments"]
html_theme = "alabaster"
