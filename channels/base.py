"""The protocol of channels, packets in and packets out, and the values that they exchange.

    Packets [N links, P packets, B bytes] ── Channel.transmit ──> Reception [N, P]

N links (pictures x realisations) travel together as padded tensors on one device. Channels do not
read what packets hold, except to code it. Each link has its own conditions and its own key of
random numbers, so that its result does not depend on the other links of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.link import BUILT_IN as LINK
from channels.packet import BUILT_IN as PACKET
from channels.random import Randomness
from channels.registry import Registry

Conditions = Mapping[str, Tensor]
"""Conditions of each link: name -> [N] float tensor, such as `snr_db` (mean Es/N0, dB) or `loss`
(0..1).
"""


@dataclass(frozen=True)
class Packets:
    """A batch of N links with up to P packets each, of up to B bytes.

    payload: uint8 [N, P, B], zero beyond each packet's length.
    lengths: int64 [N, P], bytes; 0: no packet in this slot.
    priority: int64 [N, P]; 0 is the most relevant.
    offered_s: float64 [N, P], time at which each packet is handed to the link, seconds; None: 0 for
        all.
    group: int64 [N, P], number of the group that each packet belongs to, such as the picture of a
        sequence; it never decreases along P. None: one group per link.
    """

    payload: Tensor
    lengths: Tensor
    priority: Tensor
    offered_s: Tensor | None = None
    group: Tensor | None = None

    @property
    def times_s(self) -> Tensor:
        """float64 [N, P]: `offered_s`, or zeros."""
        if self.offered_s is None:
            return torch.zeros(self.lengths.shape, dtype=torch.float64, device=self.device)
        return self.offered_s

    @property
    def groups(self) -> Tensor:
        """int64 [N, P]: `group`, or zeros."""
        return torch.zeros_like(self.lengths) if self.group is None else self.group

    @property
    def picture(self) -> Tensor | None:
        """`group` under its earlier name."""
        return self.group

    @property
    def pictures(self) -> Tensor:
        """`groups` under its earlier name."""
        return self.groups

    @property
    def present(self) -> Tensor:
        """bool [N, P]: the slots that hold a packet."""
        return self.lengths > 0

    @property
    def device(self) -> torch.device:
        return self.payload.device

    @classmethod
    def from_bytes(
        cls,
        links: Sequence[Sequence[bytes]],
        priority: Sequence[Sequence[int]] | None = None,
        device: torch.device | str = "cpu",
    ) -> Packets:
        """Pad lists of byte strings, one list per link, into tensors.

        priority: of each packet, in the same lists; None: its position in the list.

        >>> Packets.from_bytes([[b"ab", b"c"], [b"d"]]).lengths.tolist()
        [[2, 1], [1, 0]]
        """
        slots = max((len(link) for link in links), default=0)
        width = max((len(p) for link in links for p in link), default=0)
        flat = bytearray(len(links) * slots * width)
        lengths = torch.zeros(len(links), slots, dtype=torch.int64)
        ranks = torch.zeros(len(links), slots, dtype=torch.int64)
        for n, link in enumerate(links):
            for p, data in enumerate(link):
                start = (n * slots + p) * width
                flat[start : start + len(data)] = data
                lengths[n, p] = len(data)
                ranks[n, p] = p if priority is None else priority[n][p]
        payload = (
            torch.frombuffer(flat, dtype=torch.uint8).clone()
            if flat
            else torch.zeros(0, dtype=torch.uint8)
        ).reshape(len(links), slots, width)
        return cls(payload.to(device), lengths.to(device), ranks.to(device))

    def to_bytes(self) -> list[list[bytes]]:
        """Return the byte strings of every link, with b"" for an empty slot."""
        rows, lengths = self.payload.cpu(), self.lengths.cpu().tolist()
        return [
            [rows[n, p, :size].numpy().tobytes() for p, size in enumerate(sizes)]
            for n, sizes in enumerate(lengths)
        ]

    def keep(self, mask: Tensor) -> Packets:
        """Return the packets inside `mask` (bool [N, P]) in their slots; empty all other slots."""
        return replace(
            self,
            payload=self.payload * mask.unsqueeze(-1).to(self.payload.dtype),
            lengths=self.lengths * mask,
        )

    def select(self, links: Tensor | slice) -> Packets:
        """Return the packets of some links, in the order of `links` (integers, a bool mask or a
        slice).
        """
        return Packets(
            self.payload[links],
            self.lengths[links],
            self.priority[links],
            None if self.offered_s is None else self.offered_s[links],
            None if self.group is None else self.group[links],
        )

    def after(self, delay_s: Tensor) -> Packets:
        """Return the same packets, offered later by delay_s, float64 [N, P].

        An infinite delay changes nothing: that packet was lost before.
        """
        if self.offered_s is None and not bool(delay_s[delay_s.isfinite()].any()):
            return self
        late = torch.where(delay_s.isfinite(), delay_s, 0.0)
        return replace(self, offered_s=self.times_s + late)


@dataclass(frozen=True)
class Reception:
    """The outcome of `Channel.transmit` for N links: packets, delivery, channel uses, delays.

    packets: as received; a packet that is not delivered has length 0 and a payload of zeros.
    delivered: bool [N, P], whether the receiver accepts the packet (its CRC holds).
    correct: bool [N, P], whether the decoded bytes equal those sent, delivered or not.
    channel_uses: int64 [N], complex symbols or resource elements occupied, data and pilots.
    delay_s: float64 [N, P], seconds from `offered_s` to arrival; infinite where not delivered.
    ledger: name -> int64 [N], bits that the channel added: `crc`, `fec` (parity, repetition, HARQ),
        `padding` (to fill blocks and symbols) and `pilots`; and `payload`, the packets' own bits
        that were sent.
    statistics: name -> [N] tensor, such as the realised mean SNR.
    carried: bool [N, P], the packets that were sent: they reached the first channel that counts
        symbols, and no budget or queue before it dropped them. None: all packets.
    """

    packets: Packets
    delivered: Tensor
    correct: Tensor
    channel_uses: Tensor
    delay_s: Tensor
    ledger: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    carried: Tensor | None = None

    def select(self, links: Tensor | slice) -> Reception:
        """Return the reception of some links, in the order of `links` (integers, a bool mask or a
        slice).
        """
        return Reception(
            self.packets.select(links),
            self.delivered[links],
            self.correct[links],
            self.channel_uses[links],
            self.delay_s[links],
            {name: bits[links] for name, bits in self.ledger.items()},
            {name: value[links] for name, value in self.statistics.items()},
            None if self.carried is None else self.carried[links],
        )


@runtime_checkable
class Channel(Protocol):
    """A channel for packets."""

    name: str
    needs: tuple[str, ...]
    """Names of the conditions that `transmit` reads."""

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Send N x P packets over N independent links.

        conditions: name -> [N], at least those named in `needs`. randomness: N keys.
        Raises ChannelError if a packet is too long, or a condition is missing or out of range.
        """
        ...

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Return the largest number of channel uses of one packet of `packet_bytes` bytes, with
        all retransmissions.

        None if the channel counts no symbols.
        """
        ...


@runtime_checkable
class HasContentHash(Protocol):
    """A channel whose results depend on the content of a file or table."""

    def content_hash(self) -> str:
        """Return a hash of that content, or "" if there is none.

        The hash does not depend on the file's name and folder.
        """
        ...


@runtime_checkable
class AddsHeader(Protocol):
    """A channel that puts a header before each packet and passes both to a channel inside it."""

    @property
    def header_bytes(self) -> int:
        """Length of the header, bytes."""
        ...

    @staticmethod
    def header_bytes_for(parameters: Mapping[str, object]) -> int:
        """Return the length of the header, bytes, of a channel that would be made with these
        parameters.
        """
        ...


@runtime_checkable
class FixedSize(Channel, Protocol):
    """A channel built for packets of `packet_bytes`; a shorter packet uses as many symbols."""

    packet_bytes: int


@runtime_checkable
class Wrapper(Protocol):
    """A channel around others, such as a chain or an interleaver."""

    @property
    def wrapped(self) -> tuple[Channel, ...]:
        """Channels inside, in the order in which packets cross them."""
        ...


@runtime_checkable
class TakesChannels(Protocol):
    """A class of channels with parameters that describe other channels, such as `over`.

    `channels.config.packet_size` passes the packet size on to those channels.
    """

    channel_parameters: tuple[str, ...]
    """Names of those parameters. "classes.channel": the key `channel` of each mapping in the list
    `classes`.
    """


CHANNELS: Registry[Channel] = Registry("channel", "sqlink.channels", {**PACKET, **LINK})
"""Packet channels and links by name; `channels.packet` and `channels.link` list the built-in ones.
"""
register = CHANNELS.register


class Chain:
    """Channels in series: each one is offered the packets that the previous one delivered.

    Channel uses and delays add up. A packet is offered to the next channel when it arrives from the
    previous one. It is delivered if every channel delivers it. The ledger is the sum over the
    channels that count symbols; if none does, it is the first channel's.
    """

    name = "chain"

    def __init__(self, links: Sequence[Channel]) -> None:
        self.links = tuple(links)
        self.needs = tuple(dict.fromkeys(need for link in self.links for need in link.needs))

    @property
    def wrapped(self) -> tuple[Channel, ...]:
        """Channels, first to last."""
        return self.links

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        n, p = packets.lengths.shape
        device = packets.device
        delivered, correct = packets.present, packets.present
        uses = torch.zeros(n, dtype=torch.int64, device=device)
        delay = torch.zeros(n, p, dtype=torch.float64, device=device)
        ledger: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        counting = [link.uses_per_packet(1) is not None for link in self.links]
        carried: Tensor | None = None
        for stage, link in enumerate(self.links):
            offered = packets.present
            reception = link.transmit(packets, conditions, randomness.child(f"{stage}:{link.name}"))
            packets = reception.packets.after(reception.delay_s)
            delivered = delivered & reception.delivered
            correct = correct & reception.correct
            uses = uses + reception.channel_uses
            delay = delay + reception.delay_s
            occupies = counting[stage] or (stage == 0 and not any(counting))
            if occupies and carried is None:
                carried = offered if reception.carried is None else reception.carried
            for key, bits in reception.ledger.items() if occupies else ():
                ledger[key] = ledger[key] + bits if key in ledger else bits
            for key, value in reception.statistics.items():
                statistics[f"{stage}:{link.name}.{key}" if key in statistics else key] = value
        return Reception(packets, delivered, correct, uses, delay, ledger, statistics, carried)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        counts = [link.uses_per_packet(packet_bytes) for link in self.links]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None


def erasure_reception(
    packets: Packets,
    delivered: Tensor,
    delay_s: Tensor | None = None,
    statistics: Mapping[str, Tensor] | None = None,
) -> Reception:
    """Return the reception of a channel that delivers a packet unchanged or not at all.

    delivered: bool [N, P]. delay_s: float64 [N, P]; None: no delay. The channel counts no symbols.
    """
    links = packets.lengths.shape[0]
    if delay_s is None:
        delay_s = torch.zeros(delivered.shape, dtype=torch.float64, device=packets.device)
    return Reception(
        packets=packets.keep(delivered),
        delivered=delivered,
        correct=delivered,
        channel_uses=torch.zeros(links, dtype=torch.int64, device=packets.device),
        delay_s=delay_s.masked_fill(~delivered, torch.inf),
        ledger={"payload": 8 * packets.lengths.sum(dim=1)},
        statistics=statistics or {},
    )


def content_hashes(channel: Channel) -> list[str]:
    """Return the hashes of all files and tables that a channel, or one inside it, depends on."""
    own = channel.content_hash() if isinstance(channel, HasContentHash) else ""
    found = [own] if own else []
    if isinstance(channel, Wrapper):
        for inner in channel.wrapped:
            found += content_hashes(inner)
    return found
