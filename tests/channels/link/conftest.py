"""Packets, streams and ledgers of the tests of links."""

from __future__ import annotations

from typing import Any

import torch

from channels.base import Packets, Reception
from channels.link import bler_table
from channels.link.bler_table import BlerTable
from channels.link.coded import CodedLink
from channels.link.uncoded import UncodedLink
from channels.random import Randomness


def streams(links: int) -> Randomness:
    return Randomness.derive(11, [("link", n) for n in range(links)])


def packets(links: int, slots: int = 3, size: int = 20) -> Packets:
    """Packets of up to `size` bytes, of every length, with empty slots in some links."""
    words = Randomness.derive(5, [("data", n) for n in range(links)]).integers(slots * size) % 256
    return Packets.from_bytes(
        [
            [
                bytes(words[n, p * size : (p + 1) * size - (n + p) % size].tolist())
                for p in range(slots - n % 2)
            ]
            for n in range(links)
        ]
    )


def snr(links: int, snr_db: float) -> dict[str, torch.Tensor]:
    return {"snr_db": torch.full((links,), snr_db)}


def assert_accounts_hold(link: CodedLink | UncodedLink, sent: Packets, got: Reception) -> None:
    total = torch.stack(list(got.ledger.values())).sum(dim=0)
    assert torch.equal(total, got.channel_uses * link.bits_per_symbol)
    assert torch.equal(got.ledger["payload"], 8 * sent.lengths.sum(dim=1))
    assert all(bool((bits >= 0).all()) for bits in got.ledger.values())
    sizes = [[n for n in row if n] for row in sent.lengths.tolist()]
    uses = [sum(link.uses_per_packet(n) or 0 for n in row) for row in sizes]
    assert got.channel_uses.tolist() == uses


TABLE = BlerTable((0.0, 1.0, 2.0, 3.0), (980, 500, 100, 10), (1000, 1000, 1000, 1000))


def keep(table: BlerTable, **parameters: Any) -> CodedLink:
    """A lookup link whose table is in the cache."""
    link = CodedLink(fidelity="lookup", **parameters)
    bler_table.write(bler_table.cache_folder() / f"{bler_table.key(link)}.json", link, table)
    return link


def rates(table: BlerTable, *snr_db: float) -> list[float]:
    return table.rate(torch.tensor(snr_db, dtype=torch.float64)).tolist()
