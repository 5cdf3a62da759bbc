"""`python -m sqlink.cli`: the command line without its script."""

from __future__ import annotations

from sqlink.cli.app import main

if __name__ == "__main__":
    main()
