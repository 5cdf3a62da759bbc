"""Errors that a user can cause, each of one line; the base class is in `channels.errors`."""

from __future__ import annotations

from channels.errors import ChannelError, ConfigError, SQLinkError


class DataError(SQLinkError):
    """A picture, map, data set or stream cannot be read or used."""


class WeightsError(SQLinkError):
    """A weights file is missing, damaged or not the expected one."""


class MissingExtraError(SQLinkError):
    """A feature needs a package that is not installed."""


def one_line(error: BaseException) -> str:
    """Return an error's text on one line.

    >>> one_line(ValueError("not  a picture "))
    'not a picture'
    """
    return " ".join(str(error).split()) or type(error).__name__


__all__ = [
    "ChannelError",
    "ConfigError",
    "DataError",
    "MissingExtraError",
    "SQLinkError",
    "WeightsError",
    "one_line",
]
