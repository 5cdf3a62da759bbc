"""One crossing: the codec's packet size, what was sent, and what each bit of it was."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from channels.config.builder import build
from channels.random import Randomness
from sqlink import Link, Rate, Receiver, Stream, Transmitter, load_codec
from sqlink.codecs.base import Codec, Decoded, Packet, Received, Session, Unreachable
from sqlink.crossing import (
    CrossingResult,
    Draw,
    PictureSequences,
    cross,
    decode_received,
    pack,
    packet_size,
)
from sqlink.errors import ConfigError
from sqlink.receiver import outage

BYTES = 32


def stream(packets: int, size: int = BYTES) -> Stream:
    """So many packets, each its number again and again."""
    bits = {"index": 8 * size - 8, "padding": 8}
    pieces = [Packet(bytes([n + 1] * size), n, bits) for n in range(packets)]
    return Stream(Session("echo", 16, 16, b"head"), tuple(pieces))


def crossed(
    channel: object,
    answers: Sequence[Stream | Unreachable],
    realisations: int = 1,
    conditions: dict[str, float] | None = None,
    together: int | None = None,
    sequences: PictureSequences | None = None,
) -> CrossingResult:
    draws = [Draw(n, f"picture {n}", r) for n in range(len(answers)) for r in range(realisations)]
    if sequences is not None:
        draws = [
            Draw(n, f"picture {n}", r) for r in range(realisations) for n in range(len(answers))
        ]
    values = {
        name: torch.full((len(draws),), value, dtype=torch.float64)
        for name, value in (conditions or {}).items()
    }
    return cross(
        build(channel),
        answers,
        draws,
        values,
        point="p",
        packet_bytes=BYTES,
        sequences=sequences,
        together=together,
    )


def occupied(got: CrossingResult, per_symbol: int) -> Tensor:
    """Bits of the ledger less the session, beside what the symbols carried."""
    total = torch.stack(list(got.ledger.values())).sum(0) - got.ledger["session"]
    return torch.stack([total, per_symbol * got.channel_uses])


QPSK: dict[str, object] = {"over": "awgn", "modulation": "qpsk", "packet_bytes": BYTES}
CODED = {"coded": QPSK}


@pytest.mark.parametrize(
    "channel",
    [
        [{"iid_erasure": {"loss": 0.4}}, CODED],
        [CODED, {"coded": {**QPSK, "code_rate": 0.8}}],
        [{"iid_erasure": {"loss": 0.4}}, CODED, {"iid_erasure": {"loss": 0.3}}, CODED],
        {"rate_limit": {"bytes": 3 * BYTES, "over": CODED}},
        [{"rate_limit": {"bytes": 3 * BYTES}}, CODED],
        {"interleave": {"over": [{"iid_erasure": {"loss": 0.4}}, CODED], "depth": 2, "width": 2}},
        {"raptorq": {"over": [{"iid_erasure": {"loss": 0.4}}, CODED], "repair": 2}},
        {
            "unequal": {
                "over": [{"iid_erasure": {"loss": 0.4}}, CODED],
                "classes": [{"packets": 2, "copies": 2}, {}],
            }
        },
        {"coded": {**QPSK, "harq": {"rounds": 3}}},
    ],
    ids=["erasure", "hops", "both", "limit", "before", "interleave", "raptorq", "unequal", "harq"],
)  # fmt: skip
def test_the_ledger_is_what_occupied_the_symbols(channel: object) -> None:
    snr_db = 2.0 if "harq" in str(channel) else 12.0
    got = crossed(channel, [stream(5), stream(2)], 6, {"snr_db": snr_db})
    ours, theirs = occupied(got, per_symbol=2)
    assert torch.equal(ours, theirs)
    assert got.channel_uses.unique().numel() > 1
    own = got.ledger["index"] + 8 * got.carried.sum(dim=1)
    assert torch.equal(own, 8 * BYTES * got.carried.sum(dim=1))


def test_a_second_hop_pays_for_the_packets_that_came_over_the_first() -> None:
    got = crossed([CODED, CODED], [stream(4)], conditions={"snr_db": 30.0})
    assert got.ledger["relay"].tolist() == [8 * BYTES * 4]
    assert "relay" not in crossed(CODED, [stream(4)], conditions={"snr_db": 30.0}).ledger


def test_offered_sent_and_delivered_are_told_apart() -> None:
    channel = [{"rate_limit": {"bytes": 3 * BYTES}}, {"iid_erasure": {"loss": 0.5}}]
    got = crossed(channel, [stream(5)], 20)
    assert got.sent_bytes.tolist() == [4 + 3 * BYTES] * 20
    assert torch.equal(got.delivered_bytes, 4 + BYTES * got.delivered.sum(dim=1))
    assert got.carried.sum(dim=1).tolist() == [3] * 20
    assert 0 < int(got.delivered.sum()) < 60


@pytest.mark.parametrize("span", ["picture", "sequence"])
def test_what_an_interleaver_carried_is_said_of_the_packets_it_was(span: str) -> None:
    """Over a chain whose first channel loses packets, `carried` came in the order of travel."""
    over = [{"iid_erasure": {"loss": 0.4}}, CODED]
    channel = build({"interleave": {"over": over, "depth": 3, "width": 4, "span": span}})
    answers = [stream(5), stream(4), stream(3)]
    packets = PictureSequences(3, 10.0).join(pack(answers, BYTES))
    snr_db = torch.full((1,), 40.0, dtype=torch.float64)
    came = channel.transmit(packets, {"snr_db": snr_db}, Randomness.derive(2, [("n",)]))
    assert came.carried is not None
    # At 40 dB nothing is lost behind the first channel: what was carried is what came.
    assert torch.equal(came.carried, came.delivered)
    assert 0 < int(came.carried.sum()) < 12


def test_a_run_shares_its_uses_by_what_each_picture_sent() -> None:
    over = [{"iid_erasure": {"loss": 0.4}}, CODED]
    channel = {"interleave": {"over": over, "depth": 3, "width": 4, "span": "sequence"}}
    answers = [stream(5), stream(4), stream(3)]
    got = crossed(channel, answers, 4, {"snr_db": 40.0}, sequences=PictureSequences(3, 10.0))
    each = build(CODED).uses_per_packet(BYTES)
    assert each is not None
    assert torch.equal(got.channel_uses, each * got.carried.sum(dim=1))
    assert torch.equal(*occupied(got, per_symbol=2))


def test_how_many_cross_together_changes_nothing() -> None:
    answers = [stream(5), Unreachable("echo", 16, 16, 1, 2), stream(3)]
    whole = crossed([{"iid_erasure": {"loss": 0.3}}, CODED], answers, 5, {"snr_db": 0.5})
    parts = crossed([{"iid_erasure": {"loss": 0.3}}, CODED], answers, 5, {"snr_db": 0.5}, 2)
    assert whole.received == parts.received
    assert [came is None for came in whole.received] == [False] * 5 + [True] * 5 + [False] * 5
    for name in ("delivered", "correct", "carried", "channel_uses", "delay_s", "sent_bytes"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert whole.ledger.keys() == parts.ledger.keys()
    assert all(torch.equal(whole.ledger[name], parts.ledger[name]) for name in whole.ledger)


def test_the_order_of_draws_is_asserted() -> None:
    channel = build("lossless")
    with pytest.raises(ValueError, match="beyond the 1 there are"):
        cross(channel, [stream(1)], [Draw(1, "a")], {}, point="p", packet_bytes=BYTES)
    sequences = PictureSequences(2, 1.0)
    one = [Draw(0, "a")]
    with pytest.raises(ValueError, match="whole number of sequences"):
        cross(channel, [stream(1)], one, {}, point="p", packet_bytes=BYTES, sequences=sequences)
    mixed = [Draw(0, "a", 0), Draw(0, "b", 1)]
    with pytest.raises(ValueError, match="share their realisation"):
        cross(channel, [stream(1)], mixed, {}, point="p", packet_bytes=BYTES, sequences=sequences)


def test_pictures_come_back_in_their_order_with_outages_in_place() -> None:
    codec = load_codec("jpeg2000", packet_bytes=BYTES)
    images = torch.linspace(0, 1, 2)[:, None, None, None].expand(2, 3, 32, 32)
    sent = [s for s in codec.encode(images, Rate(bytes=400)) if isinstance(s, Stream)]
    came = [Received.whole(one) for one in sent]
    got = decode_received(Receiver(codec), [None, came[1], None, came[0]], 32, 32)
    assert got.outage.tolist() == [True, False, True, False]
    assert torch.equal(got.images[0], outage(1, 32, 32).images[0])
    assert float(got.images[1].mean()) > 0.9
    assert float(got.images[3].mean()) < 0.1


def test_the_codecs_packet_size_is_the_links() -> None:
    codec = load_codec("jpeg2000", packet_bytes=48)
    assert packet_size(codec) == 48
    with pytest.raises(ConfigError, match="makes packets of 48 bytes for a link of 96"):
        packet_size(codec, 96)
    channel = build({"interleave": {"over": "awgn", "depth": 2, "width": 2}})
    with pytest.raises(ConfigError, match=r"'coded' is built for packets of 96 bytes.* of 48"):
        Link(Transmitter(codec), channel, Receiver(codec))


class Scattered:
    """A codec that never fills a packet by more than half."""

    name = "scattered"
    suffix = ".sca"
    carries_map = False
    packet_bytes = BYTES

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        budget = rate.budget_bytes(*images.shape[2:]) or 0
        return [stream(max(1, budget // (BYTES // 2)), BYTES // 2) for _ in images]

    def decode(self, received: Sequence[Received]) -> Decoded:
        return outage(len(received), 16, 16)

    def parse(self, data: bytes) -> Stream:
        raise NotImplementedError


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("codec", [Scattered(), load_codec("jpeg2000", packet_bytes=BYTES)])
def test_no_picture_takes_more_channel_uses_than_asked(codec: Codec, rounds: int) -> None:
    """At an SNR at which nothing comes, every attempt is made."""
    channel = build({"coded": {**QPSK, "harq": {"rounds": rounds}}})
    most = channel.uses_per_packet(BYTES)
    assert most == rounds * (8 * BYTES + 24)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    asked = 27 * (8 * BYTES + 24) + 5
    parts = Link(Transmitter(codec), channel, Receiver(codec))
    got = parts.run(images, Rate(channel_uses=asked), {"snr_db": -15.0}, realisations=2)
    assert bool((got.channel_uses <= asked).all())
    assert bool((got.channel_uses > 0.75 * asked).all())
    with pytest.raises(ConfigError, match="carry no packet"):
        parts.run(images, Rate(channel_uses=most - 1), {"snr_db": 0.0})


def test_a_rate_limit_in_channel_uses_counts_every_attempt() -> None:
    over = {"coded": {**QPSK, "harq": {"rounds": 3}}}
    each = 3 * (8 * BYTES + 24)
    got = crossed(
        {"rate_limit": {"channel_uses": 2 * each + 1, "over": over}},
        [stream(5)],
        4,
        {"snr_db": -15.0},
    )
    assert got.channel_uses.tolist() == [2 * each] * 4
