"""A link sends each picture once, decodes each reception once, and accounts for every bit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import sqlink
from channels.base import Conditions, Packets, Reception
from channels.config.builder import build
from channels.random import Randomness
from sqlink import Link, Rate, Receiver, Stream, Transmitter, load_codec, pack, unpack
from sqlink.codecs.base import Codec, Decoded, Packet, Received, Session, Unreachable
from sqlink.crossing import PictureSequences, distinct, resolve_rate
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError, DataError

BYTES = 8
IMAGES = torch.arange(4).reshape(4, 1, 1, 1).expand(4, 3, 16, 16) / 10.0
NAMES = ["a", "b", "c", "d"]


class Echo:
    """A codec whose packets say a picture's level, whose map is the level's class, and that counts.

    Picture n has n + 1 packets; levels above `reach` are unreachable.
    """

    name = "echo"
    suffix = ".echo"
    carries_map = False
    packet_bytes = BYTES

    def __init__(self, reach: float = 1) -> None:
        self.reach = reach
        self.encoded = self.decoded = 0
        self.maps: Tensor | None = None

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        self.encoded += len(images)
        self.maps = segmentation
        height, width = images.shape[2:]
        session = Session(self.name, height, width, b"head")
        answers: list[Stream | Unreachable] = []
        for image in images:
            level = round(float(image[0, 0, 0]) * 10)
            if level > self.reach * 10:
                answers.append(Unreachable(self.name, height, width, 1, 99))
                continue
            bits = {"index": 8 * BYTES - 8, "padding": 8}
            packets = [Packet(bytes([level] * BYTES), p, bits) for p in range(level + 1)]
            answers.append(Stream(session, tuple(packets)))
        return answers

    def decode(self, received: Sequence[Received]) -> Decoded:
        self.decoded += len(received)
        first = [next((p for p in one.packets if p is not None), None) for one in received]
        level = torch.tensor([-1 if p is None else p[0] for p in first])
        shape = (len(received), received[0].session.height, received[0].session.width)
        return Decoded(
            (level.clamp(0) / 10.0).view(-1, 1, 1, 1).expand(-1, 3, *shape[1:]).clone(),
            level.clamp(0).view(-1, 1, 1).expand(shape).clone(),
            level < 0,
        )

    def parse(self, data: bytes) -> Stream:
        raise DataError("echo stores nothing")


class Level:
    """A segmenter: the class is the level of the picture."""

    name = "level"

    def segment(self, images: Tensor) -> Tensor:
        return (images[:, 0] * 10).round().to(torch.int64)


class Flips:
    """Delivers everything, but turns the first byte of each picture's first packet into 9."""

    name = "flips"
    needs: tuple[str, ...] = ()

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        payload = packets.payload.clone()
        payload[:, 0, 0] = 9
        present = packets.present
        correct = present.clone()
        correct[:, 0] = False
        count, slots = present.shape
        return Reception(
            Packets(payload, packets.lengths, packets.priority),
            present,
            correct,
            torch.zeros(count, dtype=torch.int64),
            torch.zeros(count, slots, dtype=torch.float64),
            {"payload": 8 * packets.lengths.sum(1)},
        )

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


def link(channel: object, codec: Codec | None = None, judge: Level | None = None) -> Link:
    coder = codec or Echo()
    return Link(Transmitter(coder), build(channel), Receiver(coder, judge), packet_bytes=BYTES)


def test_the_public_names_are_there() -> None:
    for name in sqlink.__all__:
        assert getattr(sqlink, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Lnk'"):
        _ = sqlink.Lnk


def test_a_lossless_link_gives_back_what_the_codec_gives_back() -> None:
    result = link("lossless", judge=Level()).run(IMAGES, Rate(bpp=1), names=NAMES)
    for n in range(4):
        segmentation, understanding = result.segmentation(n), result.understanding(n)
        assert torch.allclose(result.image(n), IMAGES[n])
        assert segmentation is not None
        assert understanding is not None
        assert segmentation.unique().tolist() == [n]
        assert understanding.unique().tolist() == [n]
    assert not result.outage.any()
    assert torch.equal(result.delivered, result.correct)
    assert result.delivered.sum(-1).flatten().tolist() == [1, 2, 3, 4]


def test_packets_come_back_as_they_were_packed() -> None:
    streams = [s for s in Echo().encode(IMAGES, Rate(bpp=1)) if isinstance(s, Stream)]
    packets = pack(streams, packet_bytes=20)
    assert packets.payload.shape == (4, 4, 20)
    assert packets.lengths.sum(1).tolist() == [8, 16, 24, 32]
    sent = build("lossless").transmit(packets, {}, Randomness.derive(0, [(n,) for n in NAMES]))
    assert unpack(streams, sent) == [Received.whole(s) for s in streams]
    with pytest.raises(ConfigError, match="packet_bytes=7"):
        pack(streams, packet_bytes=7)


def test_pictures_of_a_sequence_travel_together_and_come_apart() -> None:
    """Two links of three pictures; what nobody sent leaves no hole in what is on the link."""
    links = [[b"aa", b"ab"], [], [b"ca"], [b"da"], [b"ea", b"eb", b"ec"], [b"fa"]]
    sent = Packets.from_bytes(links)
    sequences = PictureSequences(3, picture_rate_hz=4.0)
    joined = sequences.join(sent)
    assert joined.to_bytes() == [
        [b"aa", b"ab", b"ca", b"", b""],
        [b"da", b"ea", b"eb", b"ec", b"fa"],
    ]
    assert joined.pictures.tolist() == [[0, 0, 2, 2, 2], [0, 1, 1, 1, 2]]
    assert joined.times_s[1].tolist() == [0.0, 0.25, 0.25, 0.25, 0.5]
    alone = sequences.join(Packets.from_bytes(links[:3]))
    assert torch.equal(alone.lengths, joined.lengths[:1, :3])

    channel = build([{"gilbert_elliott": {"loss": 0.4}}, "awgn"])
    keys = Randomness.derive(3, [("n", n) for n in range(2)])
    snr_db = torch.full((2,), 10.0, dtype=torch.float64)
    came = channel.transmit(joined, {"snr_db": snr_db}, keys)
    apart = sequences.split(sent, came)
    assert apart.delivered.sum() == came.delivered.sum() > 0
    for n, pieces in enumerate(apart.packets.to_bytes()):
        for p, piece in enumerate(pieces):
            assert piece == (links[n][p] if apart.delivered[n, p] else b"")
    for whole, parts in (
        (came.channel_uses, apart.channel_uses),
        *((bits, apart.ledger[name]) for name, bits in came.ledger.items()),
    ):
        assert torch.equal(whole, parts.reshape(2, 3).sum(dim=1))
    assert apart.channel_uses[1] == 0


def test_each_picture_is_coded_once_and_each_reception_decoded_once() -> None:
    codec = Echo()
    result = link("iid", codec).run(
        IMAGES, Rate(bpp=1), {"loss": 0.5}, realisations=50, names=NAMES
    )
    patterns = {(n, tuple(result.delivered[n, r].tolist())) for n in range(4) for r in range(50)}
    assert codec.encoded == 4
    # Echo's empty receptions differ in their number of slots, so they are not one.
    assert codec.decoded == len(patterns) == len(result.decoded.outage)
    assert torch.equal(result.outage, ~result.delivered.any(-1))
    for n in range(4):
        for r in range(50):
            expected = torch.zeros(3, 16, 16) if result.outage[n, r] else IMAGES[n]
            assert torch.allclose(result.image(n, r), expected)


def test_the_fate_of_a_picture_does_not_depend_on_its_company() -> None:
    def lost(pick: list[int], seed: int = 4) -> Tensor:
        result = link("iid").run(
            IMAGES[pick],
            Rate(bpp=1),
            {"loss": 0.5},
            seed=seed,
            realisations=30,
            names=[NAMES[n] for n in pick],
        )
        return result.delivered[-1, :, :3]

    assert torch.equal(lost([2]), lost([0, 3, 1, 2]))
    assert not torch.equal(lost([2]), lost([2], seed=5))


def test_conditions_may_differ_by_picture() -> None:
    loss = torch.tensor([0.0, 1.0, 0.0, 1.0])
    result = link("iid").run(IMAGES, Rate(bpp=1), {"loss": loss}, realisations=3, names=NAMES)
    assert result.outage.tolist() == [[False] * 3, [True] * 3] * 2
    with pytest.raises(ConfigError, match="'loss' must be a number"):
        link("iid").run(IMAGES, Rate(bpp=1), {"loss": torch.zeros(3)}, names=NAMES)


def test_the_ledger_adds_up_to_the_symbols_sent() -> None:
    result = link({"coded": {"over": "awgn", "modulation": "qpsk", "packet_bytes": BYTES}}).run(
        IMAGES[:3], Rate(bpp=1), {"snr_db": 9.0}, names=NAMES[:3]
    )
    total = torch.stack(list(result.ledger.values())).sum(0)
    assert torch.equal(total - result.ledger["session"], 2 * result.channel_uses)
    assert (result.ledger["session"] == 32).all()
    assert result.ledger["index"][:, 0].tolist() == [56, 112, 168]
    assert result.delivered.sum(-1).tolist() == [[n + 1] for n in range(3)]


def test_an_unreachable_picture_is_an_outage_that_sends_nothing() -> None:
    result = link("lossless", Echo(reach=0.15), Level()).run(IMAGES, Rate(bpp=1), names=NAMES)
    assert result.outage.flatten().tolist() == [False, False, True, True]
    assert result.unreachable.tolist() == [False, False, True, True]
    assert result.delivered.sum(-1).flatten().tolist() == [1, 2, 0, 0]
    assert all(not bits[2:].any() for bits in result.ledger.values())
    segmentation = result.segmentation(3)
    assert segmentation is not None
    assert segmentation.unique().tolist() == [255]
    assert torch.allclose(result.image(1), IMAGES[1])
    nothing = link("lossless", Echo(reach=-1)).run(IMAGES, Rate(bpp=1), names=NAMES)
    assert nothing.outage.all()
    assert nothing.segmentation(0) is None


def test_wrong_bytes_that_were_not_noticed_reach_the_decoder() -> None:
    codec = Echo()
    parts = Link(Transmitter(codec), Flips(), Receiver(codec), packet_bytes=BYTES)
    result = parts.run(IMAGES, Rate(bpp=1), names=NAMES)
    assert torch.allclose(result.image(0), torch.tensor(0.9))
    assert result.delivered[0, 0, 0]
    assert not result.correct[0, 0, 0]


def test_equal_receptions_share_a_number() -> None:
    session = Session("echo", 16, 16)
    a, b = Received(session, (b"x", None)), Received(session, (b"x", b"y"))
    assert distinct([a, b, Received(session, (b"x", None))]) == ([a, b], [0, 1, 0])


def test_channel_uses_become_whole_packets() -> None:
    coded = build({"coded": {"over": "awgn", "modulation": "qpsk", "packet_bytes": BYTES}})
    each = coded.uses_per_packet(BYTES)
    assert each is not None
    assert resolve_rate(Rate(channel_uses=3 * each + 1), coded, BYTES) == Rate(bytes=3 * BYTES)
    assert resolve_rate(Rate(bpp=0.5), coded, BYTES) == Rate(bpp=0.5)
    with pytest.raises(ConfigError, match="carry no packet"):
        resolve_rate(Rate(channel_uses=1), coded, BYTES)
    with pytest.raises(ConfigError, match="counts no symbols"):
        resolve_rate(Rate(channel_uses=100), build("lossless"), BYTES)


def test_the_map_is_the_segmenters_unless_one_is_given() -> None:
    codec = Echo()
    labels = torch.full((4, 16, 16), 7)
    Transmitter(codec, Level()).send(IMAGES, Rate(bpp=1))
    assert codec.maps is not None
    assert codec.maps[:, 0, 0].tolist() == [0, 1, 2, 3]
    Transmitter(codec, Level()).send(IMAGES, Rate(bpp=1), labels)
    assert codec.maps is labels
    Transmitter(codec).send(IMAGES, Rate(bpp=1))
    assert codec.maps is None
    with pytest.raises(DataError, match=r"must be \[4, 16, 16\]"):
        Transmitter(codec).send(IMAGES, Rate(bpp=1), labels[:, :8])
    with pytest.raises(DataError, match="must be"):
        Transmitter(codec).send(IMAGES[0], Rate(bpp=1))


def test_a_receiver_without_an_evaluator_says_so() -> None:
    with pytest.raises(ConfigError, match="has no evaluator"):
        Receiver(Echo()).understand(IMAGES)


def test_names_must_differ_and_realisations_be_some() -> None:
    with pytest.raises(ConfigError, match="4 different names"):
        link("lossless").run(IMAGES, Rate(bpp=1), names=["a", "a", "b", "c"])
    with pytest.raises(ConfigError, match="at least 1"):
        link("lossless").run(IMAGES, Rate(bpp=1), realisations=0)


def test_jpeg2000_crosses_a_channel_that_loses_packets() -> None:
    codec = load_codec("jpeg2000", packet_bytes=32)
    image = Streets(seed=1, count=1, height=48, width=64)[0].image[None]
    parts = Link(Transmitter(codec), build("iid"), Receiver(codec), packet_bytes=32)
    result = parts.run(image, Rate(bytes=500), {"loss": 0.1}, realisations=12)
    prefix = result.delivered[0].long().cummin(-1).values.sum(-1)
    whole = prefix == result.delivered.shape[-1]
    assert 0 < whole.sum() < 12
    assert result.outage[0][prefix * 32 < 116].all()
    assert not result.outage[0][whole].any()
    errors = torch.stack([((result.image(0, r) - image[0]) ** 2).mean() for r in range(12)])
    assert errors.argmin() in whole.nonzero()
    assert errors[~whole].max() > 2 * errors.min()
