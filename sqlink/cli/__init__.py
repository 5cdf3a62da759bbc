"""The command line, one file for each family of commands; `app` puts them together.

Nothing heavy is imported before a command needs it. This package alone, of all in `sqlink`, may
import `experiments`.
"""

from __future__ import annotations

from sqlink.cli.app import main

__all__ = ["main"]
