"""Tokens to self-contained packets and back.

Names are loaded when they are first used, so that the sending order can be had without the coder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlink.bitstream.packets import Contents, Tokens, packetise, read_packet, unpacketise
    from sqlink.bitstream.tables import (
        IndexTable,
        Tables,
        cluster_codebook,
        count_contexts,
        count_indices,
    )

__all__ = [
    "Contents",
    "IndexTable",
    "Tables",
    "Tokens",
    "cluster_codebook",
    "count_contexts",
    "count_indices",
    "packetise",
    "read_packet",
    "unpacketise",
]

_OF_PACKETS = ("Contents", "Tokens", "packetise", "read_packet", "unpacketise")


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = "packets" if name in _OF_PACKETS else "tables"
        return getattr(import_module(f"sqlink.bitstream.{home}"), name)
    raise AttributeError(f"module 'sqlink.bitstream' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
