"""Tokens to self-contained packets and back."""

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
