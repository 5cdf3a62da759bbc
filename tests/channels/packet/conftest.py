"""Packets, streams and composed channels of the tests of packet channels."""

from __future__ import annotations

import torch

from channels.base import Channel, Packets, Reception
from channels.packet.erasure import Lossless
from channels.packet.raptorq import RaptorQ
from channels.packet.unequal import Unequal
from channels.random import Randomness


def streams(links: int) -> Randomness:
    return Randomness.derive(23, [("protection", n) for n in range(links)])


def packets(links: int, slots: int, size: int = 8) -> Packets:
    """Full links of random packets of `size` bytes."""
    words = Randomness.derive(4, [("data", n) for n in range(links)]).integers(slots * size) & 0xFF
    payload = words.to(torch.uint8).reshape(links, slots, size)
    order = torch.arange(slots).expand(links, slots)
    return Packets(payload, torch.full((links, slots), size), order)


def ragged(links: int, slots: int, size: int = 12) -> Packets:
    """Two pictures a link, packets of many lengths, empty slots, priorities out of order."""
    words = Randomness.derive(9, [("ragged", n) for n in range(links)]).integers(2 * slots)
    lengths = 1 + words[:, :slots] % size
    lengths[words[:, :slots] % 5 == 0] = 0
    held = torch.arange(size) < lengths[..., None]
    return Packets(
        packets(links, slots, size).payload * held,
        lengths,
        words[:, slots:] % 6,
        0.25 * torch.arange(slots, dtype=torch.float64).expand(links, slots),
        (torch.arange(slots) * 2 // slots).expand(links, slots),
    )


def snr(links: int, snr_db: float) -> dict[str, torch.Tensor]:
    return {"snr_db": torch.full((links,), snr_db)}


def assert_same(got: Reception, expected: Reception) -> None:
    slots = got.delivered.shape[1]
    assert torch.equal(got.delivered, expected.delivered[:, :slots])
    assert torch.equal(got.correct, expected.correct[:, :slots])
    assert torch.equal(got.delay_s, expected.delay_s[:, :slots])
    assert torch.equal(got.packets.payload, expected.packets.payload[:, :slots])
    assert torch.equal(got.packets.lengths, expected.packets.lengths[:, :slots])


COMPOSED: list[object] = [
    {
        "unequal": {
            "over": {"gilbert_elliott": {"loss": 0.3}},
            "classes": [{"packets": 2, "copies": 3}, {"share": 0.4, "copies": 2}, {"copies": 1}],
        }
    },
    {
        "unequal": {
            "over": {"iid_erasure": {"loss": 0.4}},
            "classes": [{"share": 0.3, "channel": "lossless"}, {"share": 0.3}, {"copies": 0}],
        }
    },
    {"raptorq": {"over": {"iid_erasure": {"loss": 0.3}}, "repair": 2, "window": 3}},
    {"raptorq": {"over": {"iid_erasure": {"loss": 0.3}}, "overhead": 0.5, "protect": 0.6}},
    {
        "raptorq": {
            "over": {"gilbert_elliott": {"loss": 0.3, "burst": 2}},
            "repair": 2,
            "rule": "real",
        }
    },
    {
        "raptorq": {
            "over": {
                "interleave": {
                    "over": {
                        "unequal": {
                            "over": {"gilbert_elliott": {"loss": 0.3}},
                            "classes": [{"packets": 1, "copies": 2}, {}],
                        }
                    },
                    "depth": 3,
                    "width": 2,
                }
            },
            "overhead": 0.4,
        }
    },
]


class Late(Lossless):
    """Slot t arrives after 8 - t seconds."""

    def transmit(self, packets: Packets, conditions: object, randomness: Randomness) -> Reception:
        got = super().transmit(packets, {}, randomness)
        wait = 8.0 - torch.arange(packets.lengths.shape[1], dtype=torch.float64)
        delay = wait.expand_as(got.delay_s).masked_fill(~got.delivered, torch.inf)
        return Reception(
            got.packets, got.delivered, got.correct, got.channel_uses, delay, got.ledger
        )


def around(outer: Unequal | RaptorQ, inner: Channel) -> Unequal | RaptorQ:
    if isinstance(outer, Unequal):
        outer.channels = (inner,)
    else:
        outer.over = inner
    return outer


def of(sizes: torch.Tensor, times: torch.Tensor | None = None) -> Packets:
    """Packets of so many bytes, int64 [N, P], at those times."""
    links, slots = sizes.shape
    used = torch.arange(int(sizes.max())) < sizes[..., None]
    ranks = torch.arange(slots).expand(links, slots)
    return Packets(used.to(torch.uint8), sizes, ranks, times)


def plain(links: int, slots: int) -> Packets:
    """Full links of packets of one byte."""
    ranks = torch.arange(slots).expand(links, slots)
    return Packets(torch.ones(links, slots, 1, dtype=torch.uint8), torch.ones_like(ranks), ranks)
