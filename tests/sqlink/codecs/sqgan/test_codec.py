"""The codec's mechanics on a model whose tokens are colours: budgets, losses, stored files.

The model stands in for the networks: a token is the quantised mean colour of a block, so that what
must come out of any set of packets is known exactly.
"""

from __future__ import annotations

import dataclasses
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from channels.config.builder import build
from sqlink.bitstream import MODES, StreamTable, Tables, unpacketise
from sqlink.codecs import load_codec
from sqlink.codecs.base import OUTAGE_COLOUR, Codec, Rate, Received, Stream, Unreachable
from sqlink.codecs.sqgan.codec import SQGANCodec, _key
from sqlink.codecs.sqgan.mean_colour import mean_colours, with_mean_colours
from sqlink.codecs.sqgan.rate_path import BASE_ROWS
from sqlink.data import open_dataset
from sqlink.data.classes import NO_LABEL
from sqlink.errors import ConfigError, DataError, WeightsError
from sqlink.link import resolve_rate
from sqlink.model.config import STREETS
from sqlink.model.sqgan import SQGAN, Analysis
from sqlink.weights import manifest

HASH = "0123456789abcdef" * 4
MASKED = 0.5


class Blocks:
    """Tokens: 8x8x8 mean colours of 16x16 blocks, and the class at each block's first pixel."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // 16), -(-width // 16)

    def analyse(self, images: Tensor, segmentation: Tensor) -> Analysis:
        self.batches.append(len(images))
        levels = (images[:, :, ::16, ::16] * 7.999).long()
        indices = levels[:, 0] * 64 + levels[:, 1] * 8 + levels[:, 2]
        scores = images.mean(1)[:, ::16, ::16]
        return Analysis(indices, scores, segmentation[:, ::16, ::16], 1 - scores)

    def synthesise(
        self, image_indices: Tensor, map_indices: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        self.batches.append(len(image_indices))
        levels = torch.stack([image_indices // 64, image_indices // 8 % 8, image_indices % 8], 1)
        colours = torch.where(image_indices[:, None] >= 0, levels / 7, MASKED)
        images = colours.repeat_interleave(16, 2).repeat_interleave(16, 3)
        maps = map_indices.clamp(min=0).repeat_interleave(16, 1).repeat_interleave(16, 2)
        return images[..., :height, :width], maps[..., :height, :width]


class Halves:
    """A segmenter: 3 above, 7 below."""

    name = "halves"

    def segment(self, images: Tensor) -> Tensor:
        maps = torch.full((len(images), *images.shape[2:]), 3)
        maps[:, images.shape[2] // 2 :] = 7
        return maps


def made_codec(**options: object) -> SQGANCodec:
    tables = Tables(StreamTable.even(32), StreamTable.even(512, 32))
    return SQGANCodec(Blocks(), tables, HASH, **{"segmenter": Halves(), **options})  # type: ignore[arg-type]


def pictures(count: int, height: int = 360, width: int = 480, seed: int = 0) -> Tensor:
    """Smooth pictures of random colours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def streams(
    codec: Codec, images: Tensor, rate: Rate, segmentation: Tensor | None = None
) -> list[Stream]:
    answers = codec.encode(images, rate, segmentation)
    assert all(isinstance(answer, Stream) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Stream)]


def test_it_is_a_codec() -> None:
    assert isinstance(made_codec(), Codec)


@pytest.mark.parametrize("bpp", [0.01, 0.02, 0.03, 0.04])
@pytest.mark.parametrize("packet_bytes", [64, 96, 256])
def test_a_budget_is_filled_and_never_passed(bpp: float, packet_bytes: int) -> None:
    codec = made_codec(packet_bytes=packet_bytes)
    rate = Rate(bpp=bpp)
    budget = rate.budget_bytes(360, 480)
    assert budget is not None
    for stream in streams(codec, pictures(3), rate):
        assert 0.975 * budget <= stream.size <= budget  # so few bytes cannot begin a packet
        assert stream.size == len(stream.to_bytes())
        assert sum(stream.ledger.values()) == 8 * stream.size
        assert len(stream.session.header) <= 21
        assert all(len(p.data) == packet_bytes for p in stream.packets[:-1])


def test_below_the_floor_it_says_the_lowest() -> None:
    codec = made_codec()
    (answer,) = codec.encode(pictures(1), Rate(bytes=40))
    assert isinstance(answer, Unreachable)
    assert answer.lowest_bytes > 40
    (lowest,) = streams(codec, pictures(1), Rate(bytes=answer.lowest_bytes))
    assert lowest.size == answer.lowest_bytes


def test_above_the_top_everything_is_sent() -> None:
    codec = made_codec()
    (whole,) = streams(codec, pictures(1), Rate(bytes=100_000))
    (quality,) = streams(codec, pictures(1), Rate(quality=1.0))
    assert whole.to_bytes() == quality.to_bytes()
    # Nearly all tokens need a mask and may take more bytes than all of them.
    (exactly,) = streams(codec, pictures(1), Rate(bytes=whole.size))
    assert exactly.to_bytes() == whole.to_bytes()
    decoded = codec.decode([Received.whole(whole)])
    expected = codec.model.synthesise(
        codec.model.analyse(pictures(1), Halves().segment(pictures(1))).image_indices,
        torch.zeros(1, 23, 30, dtype=torch.int64),
        360,
        480,
    )[0]
    expected = with_mean_colours(expected, mean_colours(pictures(1)))
    assert torch.equal(decoded.images, (expected * 255).round() / 255)
    assert decoded.segmentation is not None
    assert decoded.segmentation.unique().tolist() == [3, 7]


def test_quality_is_how_far_along_the_path_the_stream_goes() -> None:
    codec = made_codec(split=((0.1, 0.2), (0.3, 1.0), (1.0, 1.0)))
    for quality, shares in ((0.25, (0.2, 0.6)), (0.5, (0.3, 1.0)), (1.0, (1.0, 1.0))):
        (stream,) = streams(codec, pictures(1), Rate(quality=quality))
        grids = unpacketise([p.data for p in stream.packets], 23, 30, codec.tables)
        assert [(grid >= 0).sum() for grid in grids] == [round(690 * share) for share in shares]


def test_a_budget_lies_on_the_path_that_is_given() -> None:
    """More for the map: more map tokens, at equal bytes."""
    counts = []
    for split in (((0.02, 0.02), (0.6, 0.1), (1, 1)), ((0.02, 0.02), (0.1, 0.6), (1, 1))):
        codec = made_codec(split=split)
        (stream,) = streams(codec, pictures(1), Rate(bpp=0.02))
        grids = unpacketise([p.data for p in stream.packets], 23, 30, codec.tables)
        counts.append([int((grid >= 0).sum()) for grid in grids])
    assert counts[0][0] > 3 * counts[1][0]
    assert counts[0][1] < counts[1][1] / 3


def test_a_lost_packet_is_a_hole_and_nothing_else() -> None:
    codec = made_codec()
    (stream,) = streams(codec, pictures(1), Rate(quality=1.0))
    session = dataclasses.replace(stream.session, header=b"")  # says no mean colour
    packets: list[bytes | None] = [p.data for p in stream.packets]
    whole = codec.decode([Received(session, tuple(packets))])
    packets[-2] = None
    holed = codec.decode([Received(session, tuple(packets))])
    same = (holed.images == whole.images).all(1)
    assert 0.8 < same.float().mean() < 1
    assert (holed.images[:, 0][~same] - MASKED).abs().min() < 0.51 / 255
    assert not holed.outage.any()
    assert holed.segmentation is not None
    alike = (holed.segmentation == whole.segmentation).float().mean()
    assert 0.8 < alike < 1  # a packet holds some of the map, too


def test_bytes_that_are_no_packet_are_as_lost() -> None:
    codec = made_codec()
    (stream,) = streams(codec, pictures(1), Rate(bpp=0.03))
    packets: list[bytes | None] = [p.data for p in stream.packets]
    rubbish, lost = list(packets), list(packets)
    rubbish[1], lost[1] = b"\xfc" * 96, None
    found = [codec.decode([Received(stream.session, tuple(p))]) for p in (rubbish, lost)]
    assert torch.equal(found[0].images, found[1].images)


def test_nothing_received_is_an_outage() -> None:
    codec = made_codec()
    first, second = streams(codec, pictures(2), Rate(bpp=0.03))
    nothing = Received(first.session, tuple(None for _ in first.packets))
    decoded = codec.decode([nothing, Received.whole(second)])
    assert decoded.outage.tolist() == [True, False]
    assert torch.equal(decoded.images[0, :, 5, 5], torch.tensor(OUTAGE_COLOUR))
    assert decoded.segmentation is not None
    assert decoded.segmentation[0].unique().tolist() == [NO_LABEL]


def test_the_batch_changes_nothing_and_the_network_sees_one_size() -> None:
    codec = made_codec(chunk=4)
    images = pictures(6, 64, 80)
    together = streams(codec, images, Rate(quality=0.5))
    model = codec.model
    assert isinstance(model, Blocks)
    alone = [
        streams(made_codec(), images[n : n + 1], Rate(quality=0.5))[0] for n in reversed(range(6))
    ]
    assert [s.to_bytes() for s in together] == [s.to_bytes() for s in reversed(alone)]
    codec.decode([Received.whole(s) for s in together])
    assert set(model.batches) == {4}


def test_a_second_rate_does_not_run_the_network_again() -> None:
    codec = made_codec(chunk=2)
    model = codec.model
    assert isinstance(model, Blocks)
    for bpp in (0.02, 0.03, 0.05):
        streams(codec, pictures(2), Rate(bpp=bpp))
    assert len(model.batches) == 1
    codec.encode(pictures(2), Rate(bpp=0.02), torch.zeros(2, 360, 480, dtype=torch.int64))
    assert len(model.batches) == 2


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (33, 500), (100, 16)])
def test_any_size_comes_back(height: int, width: int) -> None:
    codec = made_codec()
    (stream,) = streams(codec, pictures(1, height, width), Rate(quality=0.4))
    read = codec.parse(stream.to_bytes())
    decoded = codec.decode([Received.whole(read)])
    assert decoded.images.shape == (1, 3, height, width)


def test_a_stored_file_comes_back_as_the_stream_it_was() -> None:
    codec = made_codec()
    for stream in streams(codec, pictures(2), Rate(bpp=0.04)):
        assert codec.parse(stream.to_bytes()) == stream
        assert made_codec(packet_bytes=200).parse(stream.to_bytes()) == stream


def test_a_file_cut_short_or_flipped_is_refused_in_one_line() -> None:
    codec = made_codec()
    data = streams(codec, pictures(1), Rate(bpp=0.02))[0].to_bytes()
    wrong = [data[:keep] for keep in (0, 2, 10, 17, 18, 100, len(data) - 1)]
    wrong += [
        bytes([*data[: bit // 8], data[bit // 8] ^ 1 << bit % 8, *data[bit // 8 + 1 :]])
        for bit in range(0, 8 * len(data), 13)
    ]
    wrong += [data + b"\0", b"", b"\x89PNG" + data]
    for piece in wrong:
        with pytest.raises(DataError) as caught:
            codec.parse(piece)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [(4, b"\0\1\0\1", "16x16"), (4, b"\xff\xff\xff\xff", "limit"), (8, b"\0\0", "no packets")],
)
def test_a_forged_header_is_refused(offset: int, value: bytes, says: str) -> None:
    codec = made_codec()
    data = bytearray(streams(codec, pictures(1), Rate(bpp=0.02))[0].to_bytes())
    data[offset : offset + len(value)] = value
    data[17:21] = zlib.crc32(data[21:], zlib.crc32(data[:17])).to_bytes(4, "big")
    with pytest.raises(DataError, match=says):
        codec.parse(bytes(data))


def test_other_weights_are_named() -> None:
    codec, other = made_codec(), made_codec()
    other.weights_sha256 = "f" * 64
    (stream,) = streams(codec, pictures(1), Rate(bpp=0.02))
    with pytest.raises(WeightsError, match=r"012345.*ffffff"):
        other.parse(stream.to_bytes())
    with pytest.raises(WeightsError, match=r"012345.*ffffff"):
        other.decode([Received.whole(stream)])


@pytest.mark.parametrize(
    "options",
    [
        {"packet_bytes": 8},
        {"image_layers": 5},
        {"image_layers": "a"},
        {"image_layers": True},
        {"fixed_length": "maybe"},
        {"segmenter": 3},
        {"packet_bytes": "96"},
        {"packing": None},
        {"packing": ["single"]},
        {"chunk": 0},
        {"split": [(0.5, 0.5)]},
        {"split": [(0.5, 0.5), (0.4, 0.6)]},
        {"split": [(0.5, 0.5), (0.6, 1.2)]},
        {"split": "half"},
        {"packing": "one"},
        {"layer_bytes": [0]},
        {"layer_bytes": [200, 100]},
        {"layer_bytes": [100, 200, 300, 400]},
        {"layer_bytes": [True]},
        {"layer_bytes": "96"},
        {"layer_bytes": [96], "image_layers": 2},
        {"layer_bytes": [96], "packing": "map-dependent"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        made_codec(**options)


@pytest.mark.parametrize("rate", [Rate(quality=0.0), Rate(quality=1.5), Rate(channel_uses=1000)])
def test_wrong_rates_are_refused(rate: Rate) -> None:
    with pytest.raises(ConfigError):
        made_codec().encode(pictures(1), rate)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="map"):
        made_codec().encode(pictures(2), Rate(bpp=0.1), torch.zeros(1, 360, 480).long())
    with pytest.raises(DataError, match="pictures"):
        made_codec().encode(pictures(1)[0], Rate(bpp=0.1))


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="15x40"):
        made_codec().encode(torch.zeros(1, 3, 40, 15), Rate(bpp=0.1))


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real networks, made small, with random weights."""
    config = dataclasses.replace(
        STREETS,
        name="tiny",
        channels=(16, 16, 32),
        map_channels=(16, 16, 32),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1, 1),
        image_codes=64,
        map_codes=32,
        code_dim=8,
        demasker_blocks=1,
        samm_width=16,
        label_width=8,
        norm_groups=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SQGAN(config)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tensors = {**model.state_dict(), **Tables.uniform(32, 64).to_tensors()}
    manifest.save(
        path,
        tensors,
        {
            "kind": "sqgan",
            "model": config.to_json(),
            "rate_path": "[[0.1, 0.1], [0.5, 0.6], [1, 1]]",
        },
    )
    return path


def coded_on(
    threads: int, weights: Path | str, images: torch.Tensor
) -> tuple[list[Stream], torch.Tensor]:
    """Streams of the pictures and the pictures decoded, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        codec = load_codec("sqgan", weights=weights, segmenter=Halves())
        with torch.inference_mode(threads == 2):  # as a sweep does
            sent = streams(codec, images, Rate(quality=0.02))  # remembered for the next rate
            sent += streams(codec, images, Rate(quality=0.3))
            decoded = codec.decode([Received.whole(stream) for stream in sent])
        return sent, decoded.images.clone()
    finally:
        torch.set_num_threads(before)


def test_the_number_of_threads_changes_nothing(tiny_weights: Path) -> None:
    """Not even the scores, which decide what is sent: neither bytes nor pixels may depend on it."""
    images = pictures(5, 128, 192)
    found = [coded_on(threads, tiny_weights, images) for threads in (1, 2)]
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_a_picture_alone_is_the_same_on_any_number_of_threads() -> None:
    """The shipped networks, whose group normalisation adds up one partial sum a thread."""
    found = [coded_on(threads, "streets", pictures(1, 128, 192)) for threads in (1, 2)]
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_bfloat16_changes_pictures_a_little_and_either_end_may_use_it() -> None:
    """The shipped networks: what one precision sends the other draws."""
    image = open_dataset("streets", seed=8, count=1, height=128, width=192)[0].image[None]
    exact, coarse = (load_codec("sqgan", precision=one) for one in ("float32", "bfloat16"))
    sent = streams(coarse, image, Rate(bpp=0.2))
    drawn = [codec.decode([Received.whole(sent[0])]) for codec in (exact, coarse)]
    difference = (drawn[0].images - drawn[1].images).abs()
    assert 0 < difference.mean() < 2 / 255
    assert drawn[0].segmentation is not None
    assert drawn[1].segmentation is not None
    assert (drawn[0].segmentation == drawn[1].segmentation).float().mean() > 0.99


def test_the_networks_make_the_whole_way(tiny_weights: Path) -> None:
    codec = load_codec("sqgan", weights=str(tiny_weights), segmenter=Halves(), packet_bytes=48)
    assert isinstance(codec, SQGANCodec)
    assert codec.split != BASE_ROWS
    with pytest.raises(ConfigError, match="precision"):
        load_codec("sqgan", weights=str(tiny_weights), precision="half")
    images = pictures(3, 70, 100)
    sent = streams(codec, images, Rate(bpp=0.1))
    decoded = codec.decode([Received.whole(s) for s in sent])
    assert decoded.images.shape == images.shape
    assert decoded.segmentation is not None
    assert decoded.segmentation.shape == (3, 70, 100)
    assert not decoded.outage.any()
    alone = codec.decode([Received.whole(codec.parse(sent[2].to_bytes()))])
    torch.testing.assert_close(alone.images, decoded.images[2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "{}"}, "do not fit"),
        ({"model": STREETS.to_json()}, "do not fit"),
        ({"rate_path": "[[1, 1]]"}, "rate_path"),
        ({"kind": "segmenter"}, "segmenter"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    tiny_weights: Path, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    loaded = manifest.load(tiny_weights, "sqgan")
    path = tmp_path / "wrong.safetensors"
    manifest.save(path, loaded.tensors, {**loaded.metadata, **change})
    with pytest.raises(WeightsError, match=says) as caught:
        load_codec("sqgan", weights=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packing", MODES)
@pytest.mark.parametrize("bpp", [0.006, 0.01, 0.02, 0.03, 0.04, 0.06])
def test_every_packing_lands_near_its_budget(packing: str, bpp: float) -> None:
    codec = made_codec(packing=packing)
    budget = Rate(bpp=bpp).budget_bytes(360, 480)
    assert budget is not None
    (stream,) = streams(codec, pictures(1), Rate(bpp=bpp))
    assert 0.92 * budget <= stream.size <= budget
    assert codec.parse(stream.to_bytes()) == stream
    # Another codec, told nothing of the packing, reads it in the session.
    decoded = [
        one.decode([Received.whole(stream)]).images
        for one in (codec, made_codec(fixed_length=True))
    ]
    assert torch.equal(decoded[0], decoded[1])


def test_a_rate_does_not_depend_on_those_before() -> None:
    first, second = made_codec(packing="single"), made_codec(packing="single")
    for bpp in (0.01, 0.05, 0.03):
        streams(first, pictures(1), Rate(bpp=bpp))
    answers = [streams(codec, pictures(1), Rate(bpp=0.02))[0] for codec in (first, second)]
    assert answers[0].to_bytes() == answers[1].to_bytes()


@pytest.mark.parametrize("packing", MODES)
def test_channel_uses_are_spent_on_packets_alone(packing: str) -> None:
    """The session costs no channel use: the packets fill all that the uses carry."""
    channel = build({"coded": {"over": "awgn", "modulation": "qpsk", "packet_bytes": 96}})
    each = channel.uses_per_packet(96)
    assert each is not None
    codec = made_codec(packing=packing)
    rate = resolve_rate(Rate(channel_uses=7 * each), channel, 96, codec)
    (stream,) = streams(codec, pictures(1), rate)
    carried = sum(len(p.data) for p in stream.packets)
    assert len(stream.packets) == 7
    assert 0.98 * 7 * 96 <= carried <= 7 * 96


@pytest.mark.parametrize("packing", MODES)
def test_a_stream_cut_at_any_packet_decodes_and_gets_no_worse(packing: str) -> None:
    """On average over pictures, each packet brings the picture nearer to what was sent."""
    codec = made_codec(packing=packing, packet_bytes=64)
    images = pictures(4)
    sent = streams(codec, images, Rate(bpp=0.03))
    errors = []
    for count in range(1, min(len(s.packets) for s in sent) + 1):
        cut = [
            Received(
                s.session, tuple(p.data if n < count else None for n, p in enumerate(s.packets))
            )
            for s in sent
        ]
        decoded = codec.decode(cut)
        assert not decoded.outage.any()
        errors.append(float((decoded.images - images).square().mean()))
    assert all(later <= before + 1e-6 for before, later in pairwise(errors))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("packing", ["independent", "single"])
def test_the_first_bytes_of_a_layered_stream_are_a_smaller_budgets_picture(packing: str) -> None:
    image = pictures(1)
    plain = made_codec(packing=packing, packet_bytes=64)
    codec = made_codec(packing=packing, packet_bytes=64, layer_bytes=[192, 384])
    (stream,) = streams(codec, image, Rate(bytes=900))
    assert 0.97 * 900 <= stream.size <= 900

    def tokens(stream: Stream, count: int) -> Tensor:
        pieces = [p.data if n < count else None for n, p in enumerate(stream.packets)]
        found = codec._tokens_of(Received(stream.session, tuple(pieces)), 360, 480)
        return torch.from_numpy(np.stack(found.tokens))

    for size in (192, 384):
        (smaller,) = streams(plain, image, Rate(bytes=size + codec.session_bytes))
        wanted, got = tokens(smaller, 99), tokens(stream, size // 64)
        both = (wanted >= 0) & (got >= 0)
        assert (got[both] == wanted[both]).all()
        for one in range(2):  # of map and image, most of what that budget buys, and little else
            assert both[one].sum() > 0.7 * (wanted[one] >= 0).sum()
            assert both[one].sum() > 0.8 * (got[one] >= 0).sum()
    (whole,) = streams(plain, image, Rate(bytes=900))
    everything, most = tokens(stream, 99) >= 0, tokens(whole, 99) >= 0
    assert (everything <= most).all()
    assert everything.sum() > 0.7 * most.sum()


@pytest.mark.parametrize("sizes", [(554, 556), (629, 632), (690, 692)])
def test_layers_that_would_hold_nothing_are_left_out(sizes: tuple[int, int]) -> None:
    options = {"packing": "single", "packet_bytes": 64}
    image, rate = pictures(1), Rate(bytes=900)
    (one,) = streams(made_codec(layer_bytes=sizes[:1], **options), image, rate)
    (two,) = streams(made_codec(layer_bytes=sizes, **options), image, rate)
    assert two.to_bytes() == one.to_bytes()


def test_layers_beyond_the_budget_are_passed_over() -> None:
    image = pictures(1)
    (plain,) = streams(made_codec(), image, Rate(bytes=300))
    (layered,) = streams(made_codec(layer_bytes=[300, 600]), image, Rate(bytes=300))
    assert layered.to_bytes() == plain.to_bytes()


def test_fixed_length_indices_cost_log2_of_the_codebook() -> None:
    for packing in MODES:
        codec = made_codec(packing=packing, fixed_length=True, split=((0.3, 0.3), (1.0, 1.0)))
        (stream,) = streams(codec, pictures(1), Rate(quality=0.0001))
        assert stream.ledger["index"] == pytest.approx(207 * (5 + 9), abs=len(stream.packets))


def test_a_stream_of_an_older_version_is_refused() -> None:
    codec = made_codec()
    data = bytearray(streams(codec, pictures(1), Rate(bpp=0.02))[0].to_bytes())
    data[3] = 1
    with pytest.raises(DataError, match="version 1"):
        codec.parse(bytes(data))


def test_a_map_with_ids_that_are_no_class_is_refused_and_they_are_named() -> None:
    labels = torch.zeros(1, 32, 48, dtype=torch.long)
    labels[0, 0, :3] = torch.tensor([NO_LABEL, 11, 40])
    with pytest.raises(DataError, match="values 11, 40: the classes of camvid are 0 to 10"):
        made_codec().encode(pictures(1, 32, 48), Rate(quality=1.0), labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int64])
def test_a_map_may_be_of_any_integers_and_of_no_others(dtype: torch.dtype) -> None:
    image, labels = pictures(1, 32, 48), torch.full((1, 32, 48), 3)
    wanted = streams(made_codec(), image, Rate(quality=1.0), labels)
    found = streams(made_codec(), image, Rate(quality=1.0), labels.to(dtype))
    assert [one.to_bytes() for one in found] == [one.to_bytes() for one in wanted]
    with pytest.raises(DataError, match=r"class ids, not torch\.float32"):
        made_codec().encode(image, Rate(quality=1.0), labels.float())


def test_negative_ids_are_no_label_of_any_size() -> None:
    labels = torch.full((1, 32, 48), -1, dtype=torch.int8)
    with pytest.raises(DataError, match="value -1"):
        made_codec().encode(pictures(1, 32, 48), Rate(quality=1.0), labels)


def test_pictures_are_remembered_by_all_that_they_are() -> None:
    image, labels = pictures(1)[0], torch.zeros(360, 480, dtype=torch.uint8)
    other = labels.clone()
    other[5, 7] = 1
    keys = {_key(image, labels), _key(image, other), _key(image, None), _key(image.mT, None)}
    assert len(keys | {_key(image.flip(0), labels)}) == 5
    assert _key(image.mT.contiguous().mT, labels) == _key(image, labels)
