"""Errors that a user can cause; each is one line: what is wrong, where, how to mend it."""

from __future__ import annotations


class SQLinkError(Exception):
    """Base of every error that a user can cause. The command line prints it and exits with 2."""


class ConfigError(SQLinkError):
    """A setting has a wrong name, type or range."""


class ChannelError(SQLinkError):
    """A channel cannot do what is asked of it, such as carry a packet of that length."""
