"""Tokens of a picture to packets and back.

Names are loaded when they are first used, so that the sending order can be had without the coder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlink.bitstream.context_model import StreamTable
    from sqlink.bitstream.packets import (
        MODES,
        Contents,
        Packing,
        Tokens,
        packetise,
        parse_packets,
        read_packet,
        unpacketise,
    )
    from sqlink.bitstream.tables import Tables

__all__ = [
    "MODES",
    "Contents",
    "Packing",
    "StreamTable",
    "Tables",
    "Tokens",
    "packetise",
    "parse_packets",
    "read_packet",
    "unpacketise",
]

_HOMES = {"StreamTable": "context_model", "Tables": "tables"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = _HOMES.get(name, "packets")
        return getattr(import_module(f"sqlink.bitstream.{home}"), name)
    raise AttributeError(f"module 'sqlink.bitstream' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
