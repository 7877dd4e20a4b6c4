"""`python -m rustasr.convert SOURCE -o FILE` is `rustasr convert`."""

import sys

from rustasr.cli import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]], prog_name="python -m rustasr")
