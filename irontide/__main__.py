"""``python -m irontide``: the command line."""

from irontide.cli.main import main

if __name__ == "__main__":
    main()
