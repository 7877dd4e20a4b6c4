"""`python -m rustasr`: the command line."""

from __future__ import annotations

from rustasr.cli import main

if __name__ == "__main__":
    main()
