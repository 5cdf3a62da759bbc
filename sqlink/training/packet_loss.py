"""Lose whole packets of a picture as channels do, of those that would be sent.

    map places in sending order    ├─ 0 ─┼─ 1 ─┼─ 2 ─┼─ 3 ─┤           by bits, not by places
    image places in sending order  ├─ 0 ─┼─ 1 ─┼─ 2 ─┼─ 3 ─┤
                                           lost                        all that it held is masked

Before a step runs, the packetiser's cuts are not known to the bit, but nearly so from how many of
the places are kept: see `packets_of`. Everything is drawn in batches on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sqlink.bitstream.sending_order import sending_order

_CHUNK_BITS = 50.0
"""Heads of a packet's two chunks and what ends the packet: see docs/reference/bitstream.md."""

_MASK_SHARE = 0.77
"""Bits of a coded mask over its entropy at order 0, as kept places keep together."""


@dataclass(frozen=True)
class PacketLoss:
    """How the packets of training pictures are lost.

    clean: share of the pictures that lose nothing. rate: range of the share that another one loses.
    packet_bytes: sizes of packets, one drawn a picture. burst: most packets that are lost together.
    stream: probability that the whole map or the whole image stream is lost. index_bits: bits of a
    coded index in the image and in the map stream.

    kinds: shares of the ways to lose, of the pictures that do: single packets; bursts of packets;
    the first packet and some others; the tail (a rate limit); and single places, which no channel
    takes, but which teach the demasker quickly.
    """

    clean: float = 0.5
    rate: tuple[float, float] = (0.05, 0.5)
    packet_bytes: tuple[int, ...] = (48, 64, 96, 128, 256)
    burst: int = 5
    stream: float = 0.03
    index_bits: tuple[float, float] = (7.0, 5.6)
    kinds: tuple[float, float, float, float, float] = (0.35, 0.25, 0.1, 0.1, 0.2)


def draw_packet_losses(
    grid: tuple[int, int, int],
    fractions: tuple[Tensor, Tensor],
    settings: PacketLoss,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw the places whose tokens arrive if they are sent: bool [B, h, w] each, image and map.

    grid: B, h, w. fractions: kept share of the image's and the map's places, [B] each, in [0, 1]. A
    picture of which nothing would arrive loses nothing: there is nothing to learn from it.

    >>> share = torch.full((2,), 0.4)
    >>> lost = PacketLoss(clean=0.0, kinds=(0, 0, 0, 1, 0), rate=(0.5, 0.5), stream=0.0)
    >>> image, of_map = draw_packet_losses(
    ...     (2, 16, 32), (share, share), lost, torch.Generator().manual_seed(1)
    ... )
    >>> bool(0.4 < of_map.float().mean() < 0.7), bool(0.4 < image.float().mean() < 0.7)
    (True, True)
    """
    batch, height, width = grid
    device = generator.device

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=device)

    sizes = torch.tensor(settings.packet_bytes, device=device)
    chosen = torch.randint(len(sizes), (batch,), generator=generator, device=device)
    number_of, count = packets_of((height, width), fractions, sizes[chosen], settings.index_bits)
    most = most_packets((height, width), settings)
    low, high = settings.rate
    share = low + (high - low) * uniform(batch, 1)
    number = torch.arange(most, device=device)
    draws = uniform(batch, most)
    length = torch.randint(2, settings.burst + 1, (batch, 1), generator=generator, device=device)
    phase = (uniform(batch, 1) * length).long()
    together = draws.gather(1, (number + phase) // length % most)
    lost = torch.stack(
        (
            draws < share,
            together < share,
            (number == 0) | (draws < share / 2),
            number + 0.5 > count.unsqueeze(1) * (1 - share),
            torch.zeros_like(draws, dtype=torch.bool),
        ),
        1,
    )  # [B, kinds, most]
    kinds = torch.tensor(settings.kinds, dtype=torch.float32, device=device)
    kind = torch.multinomial(kinds, batch, replacement=True, generator=generator)
    lost = lost[torch.arange(batch, device=device), kind]  # [B, most]
    places = number_of.repeat(1, 2)  # [B, 2hw], of the image and of the map
    arrived = ~lost.gather(1, places)
    arrived &= (uniform(*places.shape) >= share) | (kind != len(settings.kinds) - 1).unsqueeze(1)
    arrived |= uniform(batch, 1) < settings.clean
    image, of = arrived.view(batch, 2, height, width).unbind(1)
    silent = uniform(batch).view(-1, 1, 1)
    image = image & (silent >= settings.stream / 2)
    of = of & (silent < 1 - settings.stream / 2)
    nothing = ~(image.flatten(1).any(1) | of.flatten(1).any(1)).view(-1, 1, 1)
    return image | nothing, of | nothing


def packets_of(
    grid: tuple[int, int],
    fractions: tuple[Tensor, Tensor],
    packet_bytes: Tensor,
    index_bits: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Return the number of each place's packet, and how many packets there are.

    grid: h, w. fractions, packet_bytes: [B]. Returns int64 [B, h * w], in raster order, the same of
    the image as of the map, and int64 [B].

    A place costs its share of the kept tokens' indices and of the mask; map and image share all
    packets in proportion, both in sending order. (The packetiser knows which places are kept and
    what each index costs, so that its cuts lie some places before or after these.)
    """
    device = packet_bytes.device
    order = _ranks(*grid, device)
    room = (8.0 * packet_bytes - _CHUNK_BITS).unsqueeze(1)
    image_bits, map_bits = (
        bits_of_a_place(fraction, bits).unsqueeze(1)
        for fraction, bits in zip(fractions, index_bits, strict=True)
    )
    total = len(order) * (map_bits + image_bits)
    number = ((order + 0.5) / len(order) * total / room).long()
    return number, torch.ceil(total / room).clamp(min=1).long().squeeze(1)


def bits_of_a_place(fraction: Tensor, index_bits: float) -> Tensor:
    """Return the mean bits of a place of a stream of which `fraction` is kept; any shape.

    >>> bits_of_a_place(torch.tensor([0.5, 1.0]), 7.0).tolist()
    [4.269999980926514, 7.0]
    """
    kept = fraction.float()
    entropy = -(torch.xlogy(kept, kept) + torch.xlogy(1 - kept, 1 - kept)) / torch.log(
        kept.new_tensor(2.0)
    )
    return kept * index_bits + _MASK_SHARE * entropy


def most_packets(grid: tuple[int, int], settings: PacketLoss) -> int:
    """Return the most packets that a picture of h x w places can take; known without asking a
    device.
    """
    bits = sum(each + _MASK_SHARE for each in settings.index_bits) * grid[0] * grid[1]
    return int(bits / (8 * min(settings.packet_bytes) - _CHUNK_BITS)) + 2


@lru_cache(maxsize=16)
def _ranks(height: int, width: int, device: torch.device) -> Tensor:
    """Return int64 [h * w]: when each place, in raster order, is sent."""
    places = torch.from_numpy(sending_order(height, width).places.copy())
    return places.argsort().to(device)
