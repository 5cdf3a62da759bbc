"""The command line: one file per family of commands, which `app` combines.

Heavy modules are imported only by the commands that need them. In `sqlink`, only this package may
import `experiments`.
"""

from __future__ import annotations

from sqlink.cli.app import main

__all__ = ["main"]
