"""One row of a sweep: a picture at a point of the grid, over one realisation of the channel.

Place ─ which row it is ─┐
Transport ─ what crossed ├─ Row.columns() ─> the store
measured ─ metrics' own ─┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlink.crossing import CHANNEL_LEDGER, CODEC_LEDGER

BITS = "bits_"
"""Prefix of the ledger's columns; they are 0 for a codec or channel without such bits."""

LEDGER = tuple(dict.fromkeys((*CODEC_LEDGER, *CHANNEL_LEDGER)))


@dataclass(frozen=True)
class Place:
    """Identity of a row.

    point, picture_key and realisation are its key. rate: text for legends, such as `bpp=0.04`;
    rate_kind, rate_value: its parts. bpp_asked: a rate in bpp or bytes as bits per pixel, else
    None; uses_asked: a rate in channel uses, else None. channel: its name. axes: columns of swept
    options. block: run of neighbouring pictures, which an interval counts as one sample.
    """

    point: str
    picture_key: str
    realisation: int
    codec: str
    rate: str
    rate_kind: str
    rate_value: float
    bpp_asked: float | None
    uses_asked: int | None
    packet_bytes: int
    channel: str
    axes: Mapping[str, float | int | str]
    seed: int
    conditions: Mapping[str, float]
    picture: str
    block: str
    height: int
    width: int


@dataclass(frozen=True)
class Transport:
    """Result of a crossing of the channel.

    stream: 16 hexadecimal digits, a hash of the coded bytes: equal if a codec makes the same bytes
    for two rates. unreachable: whether the codec cannot code the picture within the rate; this is
    not an outage of the channel. lowest_bytes: its lowest size then. setting: the codec's native
    quality that was chosen for the picture, such as a QP, if it has one. bytes: of the stream with
    its session, as offered to the channel; sent_bytes: without what a budget or a queue cut;
    delivered_bytes: as received. packets, delivered, correct, undetected: packets offered,
    delivered, received as they were sent, and delivered with wrong bytes. delay_s: delay of the
    last packet received, None without one. ledger: bits sent, by kind.
    """

    stream: str
    unreachable: bool
    lowest_bytes: int | None
    bytes: int
    sent_bytes: int
    delivered_bytes: int
    packets: int
    delivered: int
    correct: int
    undetected: int
    channel_uses: int
    delay_s: float | None
    ledger: Mapping[str, int]
    setting: float | None = None

    @classmethod
    def nothing(cls, lowest_bytes: int) -> Transport:
        """Make the transport of a picture that the codec cannot code within the rate."""
        return cls("", True, lowest_bytes, 0, 0, 0, 0, 0, 0, 0, 0, None, {})

    @classmethod
    def symbols(cls, stream: str, packets: int, channel_uses: int) -> Transport:
        """Make the transport of a picture sent as symbols: without bytes, every packet
        delivered.
        """
        return cls(
            stream, False, None, 0, 0, 0, packets, packets, packets, 0, channel_uses, None, {}
        )


@dataclass(frozen=True)
class Row:
    """A row of results. measured: columns of the picture's metrics."""

    place: Place
    transport: Transport
    measured: Mapping[str, Any]

    def columns(self) -> dict[str, Any]:
        """Return the columns of the store, in their order."""
        place, transport = dict(vars(self.place)), dict(vars(self.transport))
        conditions, ledger, axes = (
            place.pop("conditions"),
            transport.pop("ledger"),
            place.pop("axes"),
        )
        pixels = self.place.height * self.place.width
        sizes = {
            name: 8 * size / pixels
            for name, size in (
                ("bpp", self.transport.bytes),
                ("bpp_sent", self.transport.sent_bytes),
                ("bpp_delivered", self.transport.delivered_bytes),
            )
        }
        bits = {f"{BITS}{name}": int(ledger.get(name, 0)) for name in (*LEDGER, *ledger)}
        columns = {**place, **axes, **conditions, **transport, **sizes, **bits, **self.measured}
        columns["outage"] = bool(columns.get("outage")) and not self.transport.unreachable
        return columns
