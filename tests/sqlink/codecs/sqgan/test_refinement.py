"""The codec over refinement layers, on a model whose tokens say what the picture must be."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sqlink.bitstream import StreamTable, Tables
from sqlink.bitstream.packets import Packing, Tokens, expected_bytes, packetise
from sqlink.bitstream.quantisation import quantised_by_bits
from sqlink.bitstream.refinement_table import LIMIT, ZERO, RefinementTable
from sqlink.cli.progress import search_shown
from sqlink.codecs.base import CAME, LOST, NOT_SENT, Packet, Rate, Received, Stream, Unreachable
from sqlink.codecs.sqgan.codec import SQGANCodec, sqgan
from sqlink.codecs.sqgan.mean_colour import mean_colours, with_mean_colours
from sqlink.codecs.sqgan.ranked_tokens import RankedTokens
from sqlink.codecs.sqgan.rate_path import AIMS, COARSEST_ROWS
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError, DataError, WeightsError
from sqlink.metrics.lpips import FOLDER_VARIABLE
from sqlink.model.base_drawing import RecentDrawings
from sqlink.model.refinement import LARGEST, Coefficients, Quantiser
from sqlink.model.sqgan import SQGAN, Analysis, Finer, Layer, Searched
from sqlink.model.token_search import Distance, TokenSearch

HASH = "0123456789abcdef" * 4
SIZE = (160, 240)
KINDS = {"faithful": 0, "natural": 1}


STEPS = (1.0, 0.5)
"""Of the quantiser, in units of `LEVELS` of brightness."""
LEVELS = 10


class Layers:
    """Base tokens: the brightness of 16x16 blocks; a refinement token: that of 8x8, 4x4 pixels, and
    at 1/8 a digit that is always 0.

    The three kinds of gain are high at the left, at the top, and where the map holds class 9.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.threads: list[int] = []
        self.quantisers: list[Quantiser | None] = []
        self.lossy: list[list[bool]] = []

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // 16), -(-width // 16)

    def analyse(self, images: Tensor, segmentation: Tensor) -> Analysis:
        grey = images.mean(1, keepdim=True)
        base = (F.avg_pool2d(grey, 16).squeeze(1) * 63.999).long()
        scores = torch.ones_like(base, dtype=torch.float32)
        shares = F.one_hot(segmentation[:, ::4, ::4], 12).permute(0, 3, 1, 2).float()
        return Analysis(base, scores, base % 32, scores, Finer(images, shares))

    def coefficients(
        self, finer: Finer, image_indices: Tensor, map_indices: Tensor
    ) -> Coefficients:
        self.asked.append((int((map_indices >= 0).sum()), int((image_indices >= 0).sum())))
        self.threads.append(torch.get_num_threads())
        grey = finer.images.mean(1, keepdim=True)

        def layer(side: int) -> tuple[Tensor, Tensor]:
            z = F.avg_pool2d(grey, side) * LEVELS
            _, _, h, w = z.shape
            nines = finer.shares[:, 9, :: side // 4, :: side // 4]
            left = torch.arange(w, 0, -1).expand(len(z), h, w) / w
            top = torch.arange(h, 0, -1).view(-1, 1).expand(len(z), h, w) / h
            return z, torch.stack((left, top, nines), 1)

        (z8, gains8), (z4, gains4) = layer(8), layer(4)
        both = torch.cat((z8, torch.zeros_like(z8)), 1)
        # What a real network says of errors stands here for the gains.
        return Coefficients(both, z4, gains8, gains4)

    def undrawn(self, finer: Finer) -> Coefficients:
        found = self.coefficients(finer, torch.empty(0), torch.empty(0))
        self.asked.pop()
        self.threads.pop()
        return found

    def layers(
        self, coefficients: Coefficients, step: int, quantiser: Quantiser | None = None
    ) -> tuple[Layer, Layer]:
        self.quantisers.append(quantiser)
        first, second = (
            Layer((z / STEPS[step]).round().permute(0, 2, 3, 1).to(torch.int16), gains)
            for z, gains in (
                (coefficients.z8, coefficients.errors8),
                (coefficients.z4, coefficients.errors4),
            )
        )
        return first, second

    def searched(
        self,
        finer: Finer,
        image_indices: Tensor,
        map_indices: Tensor,
        coefficients: Coefficients,
        step: int,
        came: tuple[Tensor, Tensor],
        search: TokenSearch,
    ) -> Searched:
        """Digits of the tokens that are sent, times `passes`, and smaller where it is harder to be
        rounded up; codes are moved on by `passes`.
        """

        def rounded(harder: float) -> tuple[Tensor, Tensor]:
            first, second = (
                torch.where(
                    there.unsqueeze(-1),
                    (layer.digits * search.passes * (1 - harder)).round().to(torch.int16),
                    layer.digits,
                )
                for layer, there in zip(self.layers(coefficients, step), came, strict=True)
            )
            return first, second

        moved = (image_indices + search.passes).clamp(0, 63)
        return Searched(torch.where(image_indices < 0, image_indices, moved), rounded)

    def synthesise(
        self,
        image_indices: Tensor,
        map_indices: Tensor,
        height: int,
        width: int,
        refinements: Sequence[tuple[Tensor, Tensor]] = (),
        step: Tensor | None = None,
        realism: float = 1.0,
        recent: RecentDrawings | None = None,
        lossy: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        assert step is not None
        assert lossy is not None
        self.lossy.append(lossy.tolist())
        assert recent is not None or len(step) > 1
        size = torch.tensor(STEPS)[step].view(-1, 1, 1) / LEVELS
        picture = torch.where(image_indices >= 0, image_indices / 63, 0.5)
        for digits, came in refinements:
            picture = picture.repeat_interleave(2, 1).repeat_interleave(2, 2)
            picture = torch.where(came, digits[..., 0] * size, picture)
        picture = picture.repeat_interleave(4, 1).repeat_interleave(4, 2)
        images = (picture * (0.5 + realism / 2)).unsqueeze(1).expand(-1, 3, -1, -1)
        maps = map_indices.clamp(min=0).repeat_interleave(16, 1).repeat_interleave(16, 2)
        return images[..., :height, :width], maps[..., :height, :width]


class Nines:
    """A segmenter: class 9 in the lower right quarter, 3 elsewhere."""

    name = "nines"

    def segment(self, images: Tensor) -> Tensor:
        maps = torch.full((len(images), *images.shape[2:]), 3)
        maps[:, images.shape[2] // 2 :, images.shape[3] // 2 :] = 9
        return maps


PATH = [
    (0.05, 0.05, 0.0, 0.0, 0),
    (1.0, 1.0, 0.0, 0.0, 0),
    (1.0, 1.0, 1.0, 0.0, 0),
    (1.0, 1.0, 1.0, 1.0, 0),
    (1.0, 1.0, 0.6, 0.6, 1),
    (1.0, 1.0, 1.0, 1.0, 1),
]


def tables() -> Tables:
    finer = RefinementTable.even(2, 32, 64), RefinementTable.even(1, 32, 64, 2)
    return Tables(StreamTable.even(32), StreamTable.even(64, 32), finer)


def made(**options: object) -> SQGANCodec:
    chosen: dict[str, object] = {"segmenter": Nines(), "split": PATH, "steps": STEPS, **options}
    return SQGANCodec(Layers(), tables(), HASH, **chosen)  # type: ignore[arg-type]


def pictures(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 20, 30, generator=generator)
    return F.interpolate(coarse, SIZE, mode="bilinear")


def streams(codec: SQGANCodec, images: Tensor, rate: Rate) -> list[Stream]:
    found = codec.encode(images, rate)
    assert all(isinstance(one, Stream) for one in found)
    return [one for one in found if isinstance(one, Stream)]


def test_the_segmenter_computes_in_the_precision_that_is_asked_for() -> None:
    seen: list[bool] = []

    class Seen(Nines):
        def segment(self, images: Tensor) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().segment(images)

    for precision in ("float32", "bfloat16"):
        streams(made(segmenter=Seen(), precision=precision), pictures(1), Rate(bpp=0.3))
    assert seen == [False, True]
    with pytest.raises(ConfigError, match="precision"):
        made(precision="float16")


def test_losses_are_concealed_where_packets_of_a_picture_were_lost() -> None:
    """And nowhere else, whatever is decoded beside it; what was not sent is no loss."""
    codec = made(chunk=4, packet_bytes=64)
    sent = streams(codec, pictures(), Rate(bpp=0.3))
    whole = [Received.whole(one) for one in sent]
    broken = replace(whole[1], packets=(*whole[1].packets[:-1], None))
    codec.decode([whole[0], broken, whole[1]])
    codec.decode([whole[0], whole[1]])
    assert isinstance(codec.model, Layers)
    assert codec.model.lossy == [[False, True, False, False], [False] * 4]


@pytest.mark.parametrize("packing", ["independent", "map-dependent", "single"])
def test_every_budget_up_to_everything_is_used(packing: str) -> None:
    codec, images = made(packing=packing), pictures()
    everything = streams(codec, images, Rate(quality=1.0))
    most = min(stream.size for stream in everything)
    for share in (0.1, 0.2, 0.4, 0.7, 0.95):
        budget = int(share * most)
        for stream in streams(codec, images, Rate(bytes=budget)):
            assert 0.95 * budget <= stream.size <= budget
            assert sum(stream.ledger.values()) == 8 * stream.size


@pytest.mark.parametrize("packing", ["independent", "single"])
def test_digits_of_faithful_are_quantised_by_the_bits_of_the_packing(packing: str) -> None:
    def quantiser_of(**options: object) -> Quantiser | None:
        codec = made(packing=packing, **options)
        streams(codec, pictures(1), Rate(quality=1.0))
        assert isinstance(codec.model, Layers)
        return codec.model.quantisers[-1]

    quantiser = quantiser_of(aim="faithful")
    assert quantiser is not None
    z = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    found = quantiser(0, z)
    expected = quantised_by_bits(
        z[0].permute(1, 2, 0).numpy(), tables().refinements[0], 0, packing != "single"
    )
    assert torch.equal(found[0].permute(1, 2, 0), torch.from_numpy(expected).float())
    assert quantiser_of(aim="faithful", fixed_length=True) is None  # all digits cost the same
    assert quantiser_of(aim="natural") is None


def test_few_streams_are_written_to_fill_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = sqgan()
    image = Streets(seed=11, count=1, height=360, width=480)[0].image[None]
    tries: list[Tokens] = []

    def counted(tokens: Tokens, *given: Any) -> list[Packet]:
        tries.append(tokens)
        return packetise(tokens, *given)

    monkeypatch.setattr("sqlink.codecs.sqgan.sender.packetise", counted)
    for bpp in (0.1, 0.15, 0.2):
        (stream,) = streams(codec, image, Rate(bpp=bpp))
        assert 0.98 * bpp <= stream.bpp <= bpp
    assert len(tries) <= 9  # three a rate
    long_units = Packing(fixed=True)  # not four of them fit a packet
    for packing, near in ((Packing(), 0.02), (Packing("map-dependent"), 0.02), (long_units, 0.1)):
        found = [packetise(tokens, codec.tables, 96, packing) for tokens in tries]
        expected = [expected_bytes(tokens, codec.tables, 96, packing) for tokens in tries]
        assert expected == pytest.approx([sum(len(p.data) for p in f) for f in found], rel=near)
    assert expected_bytes(tries[0], codec.tables, 96, Packing("single")) is None


def test_quality_spans_the_whole_path() -> None:
    codec, images = made(), pictures(1)
    sizes = [streams(codec, images, Rate(quality=q))[0].size for q in (0.01, 0.1, 0.5, 0.8, 1.0)]
    assert all(a < b for a, b in pairwise(sizes))
    stream = streams(codec, images, Rate(quality=1.0))[0]
    shown = codec.decode([Received.whole(stream)]).images
    finest = (F.avg_pool2d(images.mean(1, keepdim=True), 4) * 2 * LEVELS).round() / (2 * LEVELS)
    finest = finest.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    finest = with_mean_colours(finest, mean_colours(images))
    torch.testing.assert_close(shown, (finest * 255).round() / 255)


def first_places(codec: SQGANCodec, images: Tensor) -> Tensor:
    """Where the first tenth of the units at 1/8 lie that hold anything, bool [h, w] of the tokens
    at 1/8.
    """
    stream = streams(codec, images, Rate(quality=0.5))[0]
    grid = codec._tokens_of(Received.whole(stream), *SIZE).tokens
    return torch.from_numpy((grid[2] >= 0).all(2) & (grid[2] != ZERO).any(2))


def test_each_aim_spends_where_it_gains_most() -> None:
    split = [(0.5, 0.5, 0.0, 0.0, 0), (1.0, 1.0, 0.2, 0.0, 0)]
    images = pictures(1)
    kept = {aim: first_places(made(aim=aim, split=split), images) for aim in AIMS}
    rows, columns = SIZE[0] // 8, SIZE[1] // 8
    assert kept["faithful"][:, columns // 2 :].sum() == 0
    assert kept["natural"][rows // 2 :].sum() == 0
    inside = kept["legible"][rows // 2 :, columns // 2 :].float().mean()
    assert inside > 0.5 * kept["legible"].float().mean()


def test_legible_goes_by_what_matters_to_the_task() -> None:
    split = [(0.5, 0.5, 0.0, 0.0, 0), (1.0, 1.0, 0.2, 0.0, 0)]
    relevance = [0.0] * 11
    relevance[9] = 1.0
    kept = first_places(made(split=split, relevance=relevance), pictures(1))
    rows, columns = SIZE[0] // 16 * 2, SIZE[1] // 8
    outside = kept.clone()
    outside[rows // 2 :, columns // 2 :] = False
    assert kept.any()
    assert not outside.any()


def test_units_are_set_to_zero_where_that_takes_fewer_bits_than_a_mask() -> None:
    rank = np.arange(12).reshape(3, 4)
    units = (ZERO + 1 + np.arange(12 * 8).reshape(3, 4, 8)).astype(np.int16)
    for zero, holds in ((0.2, ZERO), (9.0, -1)):
        ranked = RankedTokens(units, rank, np.zeros(13), zero)
        found = ranked.kept(5)
        assert np.array_equal(found.reshape(12, 8)[:5], units.reshape(12, 8)[:5])
        assert (found.reshape(12, 8)[5:] == holds).all()
        assert (ranked.kept(0) == -1).all()
        assert np.array_equal(ranked.kept(12), units)
    assert (RankedTokens(rank, rank, np.zeros(13)).kept(5) == -1).sum() == 7


def test_the_refinement_is_of_what_the_base_that_is_sent_leaves() -> None:
    """The network is asked with the tokens of the stream, once for each choice of them, and not
    where nothing finer is sent.
    """
    split = [(0.1, 0.2, 0.0, 0.0, 0), (0.5, 0.4, 0.0, 0.0, 0), (0.5, 0.4, 0.8, 0.2, 0)]
    codec, image = made(split=split), pictures(1)
    assert isinstance(codec.model, Layers)
    streams(codec, image, Rate(quality=0.3))
    assert codec.model.asked == []
    sizes = [streams(codec, image, Rate(quality=q))[0].size for q in (0.6, 0.8)]
    assert sizes[0] < sizes[1]
    places = SIZE[0] // 16 * (SIZE[1] // 16)
    assert codec.model.asked == [(places // 2, round(0.4 * places))]


def test_a_remembered_picture_is_worked_on_by_one_thread_too() -> None:
    """Group normalisation adds up one partial sum a thread, which changes the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        codec, images = made(), pictures(2)
        assert isinstance(codec.model, Layers)
        streams(codec, images, Rate(quality=0.01))
        assert codec.model.threads == []
        streams(codec, images, Rate(quality=0.8))
        assert set(codec.model.threads) == {1}
    finally:
        torch.set_num_threads(before)


def test_any_packet_may_be_lost() -> None:
    codec, images = made(), pictures(1)
    stream = streams(codec, images, Rate(quality=0.9))[0]
    whole = codec.decode([Received.whole(stream)]).images
    error = []
    for lost in range(len(stream.packets)):
        came = tuple(None if n == lost else p.data for n, p in enumerate(stream.packets))
        shown = codec.decode([Received(stream.session, came)])
        assert not shown.outage.any()
        error.append(float((shown.images - whole).abs().mean()))
    assert 0 < max(error) < 0.3


def test_a_refinement_without_its_base_is_survived() -> None:
    codec, images = made(), pictures(1)
    stream = streams(codec, images, Rate(quality=1.0))[0]
    last = (*(None for _ in stream.packets[:-1]), stream.packets[-1].data)
    shown = codec.decode([Received(stream.session, last)])
    assert not shown.outage.any()
    hanging = made(packing="map-dependent")
    stream = streams(hanging, images, Rate(quality=1.0))[0]
    last = (*(None for _ in stream.packets[:-1]), stream.packets[-1].data)
    assert hanging.decode([Received(stream.session, last)]).outage.all()


def test_realism_is_the_receivers() -> None:
    images = pictures(1)
    stream = streams(made(), images, Rate(quality=0.5))[0]
    session = replace(stream.session, header=b"")  # says no mean colour, and the first step
    received = replace(Received.whole(stream), session=session)
    shown = [made(realism=realism).decode([received]).images for realism in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(shown[0] * 2, shown[2], atol=0.01, rtol=0)
    torch.testing.assert_close(shown[1], (shown[0] + shown[2]) / 2, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"realism": 1.2}, "realism"),
        ({"realism": "high"}, "realism"),
        ({"aim": "pretty"}, "aim"),
        ({"split": [(0.5, 0.5), (1, 1)]}, "rows"),
        ({"split": [(0.5, 0.5, 0, 0, 0), (1, 1, -0.1, 0, 0)]}, "fractions"),
        ({"split": [(0.5, 0.5, 0, 0, 0), (1, 1, 0, 0, 2)]}, "from 0 to 1"),
        ({"split": [(0.5, 0.5, 0, 0, 0), (1, 1, 0, 0, 0.5)]}, "whole numbers"),
        ({"split": [(0.5, 0.5, 0, 0, 0), (1, 1, 0, 0, 1)]}, "two rows of one step"),
        ({"split": [(1, 1, 1, 0, 1), (1, 1, 1, 1, 0), (1, 1, 1, 1, 0)]}, "rise"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        made(**options)
    assert "\n" not in str(caught.value)


def test_weights_without_refinement_have_one_realism() -> None:
    base = Tables(StreamTable.even(32), StreamTable.even(64, 32))
    with pytest.raises(ConfigError, match="no refinement"):
        SQGANCodec(Layers(), base, HASH, realism=0.5)


def no_distance(passes: int) -> TokenSearch:
    return TokenSearch(cast(Distance, None), passes)


@pytest.mark.parametrize("passes", [-2, -1, 0])
@pytest.mark.parametrize("options", [{}, {"packing": "single"}, {"layer_bytes": [200, 500]}])
def test_after_a_search_the_budget_is_filled_again(passes: int, options: dict[str, Any]) -> None:
    """Whether digits take fewer bytes after it, as many, or more."""
    images, budget = pictures(1), 900
    plain = streams(made(**options), images, Rate(bytes=budget))[0]
    codec = made(search=no_distance(passes), **options)
    stream = streams(codec, images, Rate(bytes=budget))[0]
    assert stream.size <= budget
    # Of zeros alone there is not enough to fill it.
    assert passes == 0 or stream.size >= 0.93 * budget
    assert stream.packets != plain.packets
    streams(codec, images, Rate(bytes=2 * budget))
    assert streams(codec, images, Rate(bytes=budget)) == [stream]


def indices_of_base(codec: SQGANCodec, stream: Stream) -> tuple[NDArray[Any], NDArray[Any]]:
    height, width = stream.session.height, stream.session.width
    map_, image, *_ = codec._read(Received.whole(stream), height, width).tokens
    return map_, image


@pytest.mark.parametrize("budget", [120, 300, 380, 900])
def test_a_search_moves_the_codes_of_the_picture_and_not_of_the_map(budget: int) -> None:
    """Of the base alone as well, where no digits can fill a budget again."""
    images, rate = pictures(1), Rate(bytes=budget)
    codecs = made(), made(search=no_distance(2))
    plain, searched = (streams(codec, images, rate)[0] for codec in codecs)
    assert 0.85 * budget <= searched.size <= budget
    (map_, image), (same, moved) = (
        indices_of_base(codec, stream)
        for codec, stream in zip(codecs, (plain, searched), strict=True)
    )
    both = (image >= 0) & (moved >= 0)
    assert both.any()
    assert np.array_equal(moved[both], (image[both] + 2).clip(0, 63))
    there = (map_ >= 0) & (same >= 0)
    assert np.array_equal(map_[there], same[there])


def test_a_search_is_shown_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(codec: SQGANCodec) -> Any:
        search = codec._sender.search
        return None if search is None else search.tell

    plain, searching = made(), made(search=no_distance(2))
    assert (plain.searches, searching.searches) == (False, True)
    with search_shown(searching):
        assert told(searching) is None  # a file
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with search_shown(plain):
        assert told(plain) is None
    with search_shown(searching):
        for _ in range(2):  # pictures
            told(searching)(1, 2)
        print("a line for a file")
    assert told(searching) is None
    said = capsys.readouterr()
    assert "1/2" in said.err
    assert said.out == "a line for a file\n"


def test_a_search_is_not_for_fidelity() -> None:
    images, rate = pictures(1), Rate(bytes=900)
    plain, searched = (
        streams(made(aim="faithful", search=search), images, rate)
        for search in (None, no_distance(2))
    )
    assert plain == searched
    with pytest.raises(ConfigError, match="search_passes: a search is for LPIPS"):
        sqgan(aim="faithful", search_passes=3)
    with pytest.raises(ConfigError, match="search_passes"):
        sqgan(search_passes=-1)


def test_a_search_without_the_files_of_lpips_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(WeightsError, match=r"LPIPS has no weights: squeezenet"):
        sqgan(search_passes=3, lpips_weights=tmp_path)


def test_a_file_reads_back_and_an_old_one_is_refused() -> None:
    codec, images = made(), pictures(1)
    stream = streams(codec, images, Rate(quality=0.7))[0]
    assert codec.parse(stream.to_bytes()) == stream
    old = bytearray(stream.to_bytes())
    old[3] = 2 << 4 | old[3] & 15
    with pytest.raises(DataError, match="version 2: this SQLink reads 5"):
        codec.parse(bytes(old))
    before = replace(stream.session, header=bytes(old[:18]))  # as long as it was then
    with pytest.raises(DataError, match="version 2: this SQLink reads 5"):
        codec.decode([replace(Received.whole(stream), session=before)])
    other = bytearray(stream.to_bytes())
    other[10] = 2
    other[17:21] = zlib.crc32(bytes(other[21:]), zlib.crc32(bytes(other[:17]))).to_bytes(4, "big")
    with pytest.raises(DataError, match="no quantiser step 2"):
        codec.parse(bytes(other))


def test_pictures_of_different_steps_are_decoded_together() -> None:
    codec, images = made(), pictures(2)
    first = streams(codec, images[:1], Rate(quality=0.6))[0]
    second = streams(codec, images[1:], Rate(quality=1.0))[0]
    assert first.session.header[10] == 0
    assert second.session.header[10] == 1
    together = codec.decode([Received.whole(first), Received.whole(second)]).images
    for n, stream in enumerate((first, second)):
        alone = codec.decode([Received.whole(stream)]).images
        torch.testing.assert_close(together[n : n + 1], alone)


def test_a_rate_gives_the_same_stream_whatever_was_asked_before() -> None:
    """The tokens of steps that other rates needed are remembered; the answer may not show it."""
    images = pictures(1)
    most = streams(made(), images, Rate(quality=1.0))[0].size
    budgets = [round(share * most) for share in np.linspace(0.1, 0.98, 12)]
    alone = [streams(made(), images, Rate(bytes=budget))[0] for budget in budgets]
    for order in (budgets, budgets[::-1]):
        codec = made()
        found = {budget: streams(codec, images, Rate(bytes=budget))[0] for budget in order}
        assert [found[budget] for budget in budgets] == alone


def test_a_finer_step_takes_over_without_a_gap() -> None:
    """Between the end of one step and the end of the next, every budget finds a stream."""
    codec, images = made(), pictures(1)
    ends = [streams(codec, images, Rate(quality=q))[0] for q in (0.749, 1.0)]
    for budget in range(ends[0].size, ends[1].size, 200):
        stream = streams(codec, images, Rate(bytes=budget))[0]
        assert 0.97 * budget <= stream.size <= budget


def test_below_the_floor_the_lowest_size_is_named() -> None:
    answer = made().encode(pictures(1), Rate(bytes=20))[0]
    assert isinstance(answer, Unreachable)
    assert answer.lowest_bytes > 20
    assert len(COARSEST_ROWS[0]) == 5


def test_the_fate_of_a_place_tells_its_refinement_too() -> None:
    codec, images = made(), pictures(1)
    (stream,) = streams(codec, images, Rate(quality=0.9))
    labels = torch.zeros(images.shape[2:], dtype=torch.int64)
    whole = codec.token_fate(images[0], labels, stream, Received.whole(stream))
    assert whole.shape == (*codec.model.grid(*images.shape[2:]), 4)
    assert set(np.unique(whole[..., 3])) <= {NOT_SENT, CAME}
    assert (whole[..., 3] == CAME).any()
    kept = [p.data if n % 2 == 0 else None for n, p in enumerate(stream.packets)]
    some = codec.token_fate(images[0], labels, stream, Received(stream.session, tuple(kept)))
    assert (some[..., 3] == LOST).any()
    assert ((some[..., 3] == NOT_SENT) == (whole[..., 3] == NOT_SENT)).all()
    nothing = Received(stream.session, (None,) * len(stream.packets))
    gone = codec.token_fate(images[0], labels, stream, nothing)
    assert not (gone[..., 1:] == CAME).any()
    assert (gone[..., 0] == whole[..., 0]).all()


def test_the_network_makes_no_digit_that_the_coder_has_not() -> None:
    assert LARGEST <= LIMIT


def test_the_shipped_decoder_of_realism_0_mends_the_edges_of_blocks() -> None:
    """Against the sum of base and tokens, which is what it draws with its last layer at nothing."""
    codec = sqgan(aim="faithful", realism=0.0)
    image = Streets(seed=11, count=1, height=192, width=256)[0].image[None]
    (stream,) = streams(codec, image, Rate(bpp=0.08))
    mended = codec.decode([Received.whole(stream)]).images
    assert isinstance(codec.model, SQGAN)
    assert codec.model.refinement is not None
    with torch.no_grad():
        for parameter in codec.model.refinement.probable.out.parameters():
            parameter.zero_()
    plain = codec.decode([Received.whole(stream)]).images

    def edges(picture: Tensor) -> float:
        """Mean size of the steps across edges of blocks over that of all others."""
        jumps = (picture[..., 1:] - picture[..., :-1]).abs().mean((0, 1, 2))
        at_edge = torch.arange(len(jumps)) % 16 == 15
        return float(jumps[at_edge].mean() / jumps[~at_edge].mean())

    errors = [float((picture - image).square().mean()) for picture in (plain, mended)]
    assert 10 * math.log10(errors[0] / errors[1]) > 0.2
    assert edges(mended) < 0.8 * edges(plain)


class Squared:
    """The squared error as a search's distance."""

    def to(self, originals: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda shown: (shown - originals).square().mean((1, 2, 3)).sum()


@pytest.mark.slow
@pytest.mark.parametrize("bytes_", [80, 110, 460])
def test_a_search_through_the_shipped_network_lowers_its_distance(bytes_: int) -> None:
    """Of the base alone, with a few units and with many; in inference mode, too, in which a sweep
    runs.
    """
    image = Streets(seed=11, count=1, height=120, width=185)[0].image[None]
    rate, errors, found = Rate(bytes=bytes_), [], []
    for passes in (0, 12):
        with torch.inference_mode(mode=bool(passes)):
            codec = sqgan()
            codec._sender = replace(codec._sender, search=TokenSearch(Squared(), passes))
            stream = streams(codec, image, rate)[0]
            shown = codec.decode([Received.whole(stream)]).images
        errors.append(float((shown - image).square().mean()))
        found.append(stream)
    assert errors[1] < 0.99 * errors[0]
    assert 0.95 * found[0].size <= found[1].size <= bytes_
    (map_, image_), (same, moved) = (indices_of_base(codec, stream) for stream in found)
    both = (image_ >= 0) & (moved >= 0)
    assert (moved[both] != image_[both]).any()
    assert np.array_equal(map_, same) or bytes_ < 460
    assert streams(codec, image, rate)[0] == found[1]
