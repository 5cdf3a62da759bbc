"""Errors that a user can cause, all of them one line; see `channels.errors` for the base."""

from __future__ import annotations

from channels.errors import ChannelError, ConfigError, SQLinkError


class DataError(SQLinkError):
    """A picture, map, data set or stream cannot be read or used."""


class WeightsError(SQLinkError):
    """A weights file is missing, damaged or not the one that is named."""


class MissingExtraError(SQLinkError):
    """A feature needs a package that is not installed."""


__all__ = [
    "ChannelError",
    "ConfigError",
    "DataError",
    "MissingExtraError",
    "SQLinkError",
    "WeightsError",
]
