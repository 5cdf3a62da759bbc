"""Make channels from a description, in YAML or in Python.

awgn                                                        a predefined or registered channel
{coded: {over: awgn, modulation: qpsk, code_rate: 0.5}}     a channel with its parameters
{awgn: {modulation: 16qam}}                                 a predefined channel, one changed
[{iid_erasure: {loss: 0.1}}, rayleigh]                      a chain of channels

Symbol and bit channels are described in the same way, by `from_spec`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from channels.base import CHANNELS, Chain, Channel
from channels.config.description import READY, name_and_parameters
from channels.config.packet_size import with_packet_size
from channels.config.paths import beside
from channels.config.yaml import read_yaml
from channels.errors import ConfigError
from channels.registry import Registry, nearest

T = TypeVar("T")


def names() -> list[str]:
    """Return every name that `build` accepts."""
    return sorted({*READY, *CHANNELS.names()})


_LOG = logging.getLogger(__name__)


@cache
def _note_chain(names: str) -> None:
    """Warn once that packets cross more than one symbol channel."""
    _LOG.warning(
        "note: channel [%s] is a chain: each packet is sent over all of its channels and pays for "
        "each; to compare channels, name one, or use `channels:` in a sweep",
        names,
    )


def build(spec: object) -> Channel:
    """Make the channel that `spec` describes: a name, {name: parameters}, or a list of these.

    A list makes a chain. Raises ConfigError for an unknown channel or parameter, with the nearest
    known name, and for a value of the wrong type or out of range.

    >>> build("iid").needs
    ('loss',)
    >>> build([{"iid_erasure": {"loss": 0.1}}, "awgn"]).needs
    ('snr_db',)
    """
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        if not spec:
            raise ConfigError("a chain of channels must name at least one, such as [lossless]")
        links = [build(link) for link in spec]
        if sum(link.uses_per_packet(1) is not None for link in links) > 1:
            _note_chain(", ".join(_named(one, link) for one, link in zip(spec, links, strict=True)))
        return Chain(links)
    name, parameters = name_and_parameters("channel", spec)
    if name in READY:
        base, preset = READY[name]
        return CHANNELS.make(base, {**preset, **parameters})
    if name not in CHANNELS.names():
        raise ConfigError(f"unknown channel '{name}': {nearest(name, names())}")
    return CHANNELS.make(name, parameters)


def load(path_or_name: str | Path, packet_bytes: int | None = None) -> Channel:
    """Make the channel that a YAML file or a name describes.

    path_or_name: a file if it exists or ends in .yaml or .yml, else a name. packet_bytes: packet
    size for a description that gives none. Paths in a file are relative to its folder. Raises
    ConfigError if the file is missing, is not valid YAML, or does not describe a channel.

    >>> load("lossless").name
    'lossless'
    """
    path = Path(path_or_name)
    if path.suffix.lower() not in (".yaml", ".yml") and not os.path.isfile(path):
        return _sized(str(path_or_name), packet_bytes)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"cannot read channel file {path}: {reason}") from error
    spec = beside(read_yaml(text, f"channel file {path}"), path.parent)
    try:
        return _sized(spec, packet_bytes)
    except RecursionError as error:
        raise ConfigError(
            f"channel file {path}: a chain contains itself: list its channels"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"channel file {path}: {error}") from error


def from_spec(registry: Registry[T], spec: object) -> T:
    """Make an object of a registry from a name or {name: parameters}. Raises ConfigError."""
    return registry.make(*name_and_parameters(registry.kind, spec))


def _named(spec: object, made: Channel) -> str:
    """Return the name that a description gives to its channel."""
    return made.name if isinstance(made, Chain) else name_and_parameters("channel", spec)[0]


def _sized(spec: object, packet_bytes: int | None) -> Channel:
    return build(spec if packet_bytes is None else with_packet_size(spec, packet_bytes))
