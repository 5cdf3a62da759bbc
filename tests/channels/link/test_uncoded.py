"""Uncoded links: packets come whole or not at all."""

from __future__ import annotations

import torch

from channels.link.uncoded import UncodedLink
from tests.channels.link.conftest import assert_accounts_hold, packets, snr, streams


def test_uncoded_packets_come_whole_or_not_at_all() -> None:
    for modulation in ("qpsk", "64qam"):
        link, sent = UncodedLink(modulation=modulation), packets(30)
        good = link.transmit(sent, snr(30, 40.0), streams(30))
        assert good.packets.to_bytes() == sent.to_bytes()
        bad = link.transmit(sent, snr(30, 8.0), streams(30))
        assert 0 < int(bad.delivered.sum()) < int(sent.present.sum())
        assert torch.equal(bad.packets.payload[bad.delivered], sent.payload[bad.delivered])
        assert_accounts_hold(link, sent, good)
        assert_accounts_hold(link, sent, bad)
