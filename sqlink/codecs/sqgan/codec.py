"""SQ-GAN as a codec: tokens of the picture and of its map, within a budget of true bytes.

    images, map ─ model.analyse ─ indices and scores of every place, of every stream
                    └─ keep the most relevant of each ─ packetise ─ Stream
    packets that came ─ unpacketise ─ indices, -1 where masked or lost ─ model.synthesise ─ Decoded

The streams are the base's, of map and picture at 1/16, and, where the weights have them, the two of
the refinement, in units of 2x2 tokens (`sqlink.bitstream.refinement_table`), whose digits are
quantised in one of the weights' steps. A stored `.sqg` is a `session` and then the packets. A
budget is filled along a path of kept fractions of the streams (`rate_path`). The weights hold a
path for each aim, or the user gives one; `sender` finds the farthest point of it whose packets fit,
or one that fills 98 % of the budget.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from channels.config.checks import choice, flag, integer, number
from sqlink.bitstream.independent import LAYERS
from sqlink.bitstream.packets import (
    MIN_PACKET_BYTES,
    MODES,
    Packing,
    parse_packets,
    unpacketise,
)
from sqlink.bitstream.refinement_table import ZERO, tokens_of
from sqlink.bitstream.tables import Tables
from sqlink.codecs.base import (
    CAME,
    DEFAULT_PACKET_BYTES,
    LOST,
    MAX_PACKET_BYTES,
    NOT_SENT,
    Decoded,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    outage_images,
    register,
)
from sqlink.codecs.sqgan.mean_colour import mean_colours, with_mean_colours
from sqlink.codecs.sqgan.ranked_tokens import AnalysedPicture
from sqlink.codecs.sqgan.rate_path import (
    AIMS,
    POINTS,
    RatePath,
    Rows,
    Split,
    checked_rows,
    default_rows,
    stored_rows,
)
from sqlink.codecs.sqgan.sender import Analyser, Sender, SentPackets
from sqlink.codecs.sqgan.session import (
    MAX_SIDE,
    SESSION_BYTES,
    WEIGHTS_BYTES,
    SessionHeader,
    begins_as_session,
    split_file,
)
from sqlink.data.classes import CAMVID, NO_LABEL, ClassSet, class_set_of_size, listed
from sqlink.data.pictures import check_size
from sqlink.errors import ConfigError, DataError, WeightsError
from sqlink.model.base_drawing import RecentDrawings
from sqlink.runtime.precision import full_precision
from sqlink.runtime.threads import one_thread_each, side_by_side
from sqlink.segmentation import check_segmenter
from sqlink.weights.manifest import load

if TYPE_CHECKING:
    from sqlink.model.sqgan import Analysis
    from sqlink.model.token_search import TokenSearch
    from sqlink.segmentation.base import Segmenter

PRECISIONS = ("float32", "bfloat16")
"""Precisions of the networks."""
_REMEMBERED = 128
"""Pictures whose analysis is kept for the next rate."""
_READ = 8
"""Receptions whose tokens are kept, for callers that decode one and ask for its fate."""


class TokenModel(Analyser, Protocol):
    """The two halves of a network; see `sqlink.model.sqgan.SQGAN`."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of tokens."""
        ...

    def analyse(self, images: Tensor, segmentation: Tensor) -> Analysis:
        """Return the indices and scores of every place."""
        ...

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
        """Return pictures and maps from indices, -1 where masked."""
        ...


@dataclass(frozen=True)
class _Read:
    """Tokens that arrived; they are shared and must not be changed.

    tokens: indices int64 [h, w] of map and image, digits int16 [k h, k w, D] of the refinements, -1
    where nothing arrived. step: index of the quantiser's step. lossy: whether packets were lost.
    colour: see `mean_colour`; None where no session says it.
    """

    tokens: tuple[NDArray[Any], ...]
    step: int
    lossy: bool
    colour: bytes | None

    @property
    def empty(self) -> bool:
        """Whether nothing arrived."""
        return not any((part >= 0).any() for part in self.tokens)


class SQGANCodec:
    """The codec around a model and its tables; `load_codec("sqgan")` makes one from weights.

    weights_sha256: hex digest by which a stored file names its weights.
    packet_bytes: size of every packet but the last, 32 to 65535.
    segmenter: makes the map where `encode` gets none; a segmenter or its name.
    split: rows of the path of rates (`rate_path`), for every aim or one path for each aim.
    aim: one of AIMS; what the bytes are spent for.
    realism: used by `decode`; from 0, the most probable picture without invented texture, to 1,
        the most natural one. Below 1 only for weights with refinements.
    relevance: of each class to the task, in [0, 1].
    image_layers: layers of relevance of the image's tokens, 1 to 4. More layers send the most
        relevant tokens first and cost bytes.
    layer_bytes: up to three rising sizes in bytes, for streams within a budget: the packets' first
        so many bytes then hold about what a budget of that size would send. Sizes beyond the budget
        are ignored. `independent` packets repeat the mask in each layer, a `single` stream does
        not.
    packing: `independent`, `map-dependent` or `single`; see `sqlink.bitstream.packets`.
    fixed_length: code indices with log2 of the codebook's size bits each, an ablation.
    search: finds tokens that look better at realism 1; not for `faithful`.
    precision: that the segmenter computes in, one of PRECISIONS; the model has its own.
    chunk: pictures that the network processes at once, always the same number, so that a result
        does not depend on the other pictures. None: 1 on a CPU, up to 16 on CUDA.
    trained_on: metrics that were training losses of the weights; tables and figures mark them.
    classes: class set of the maps.
    steps: sizes of the quantiser's steps, none without refinements.
    steps_per_row: steps that share a row of the tables.
    """

    name = "sqgan"
    suffix = ".sqg"
    carries_map = True
    session_bytes = SESSION_BYTES

    def __init__(
        self,
        model: TokenModel,
        tables: Tables,
        weights_sha256: str,
        *,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        segmenter: Segmenter | str = "tx",
        split: Split | Mapping[str, Split] | None = None,
        aim: str = AIMS[0],
        realism: float = 1.0,
        relevance: Sequence[float] = (),
        image_layers: int = 1,
        layer_bytes: Sequence[int] = (),
        packing: str = MODES[0],
        fixed_length: bool = False,
        search: TokenSearch | None = None,
        device: torch.device | str = "cpu",
        precision: str = PRECISIONS[0],
        chunk: int | None = None,
        trained_on: Sequence[str] = (),
        classes: ClassSet = CAMVID,
        steps: Sequence[float] = (),
        steps_per_row: int = 1,
    ) -> None:
        self.packet_bytes = integer(
            self.name, "packet_bytes", packet_bytes, MIN_PACKET_BYTES, MAX_PACKET_BYTES
        )
        self.image_layers = integer(self.name, "image_layers", image_layers, 1, LAYERS)
        packing = choice(self.name, "packing", packing, MODES)
        flag(self.name, "fixed_length", fixed_length)
        self.precision = choice(self.name, "precision", precision, PRECISIONS)
        check_segmenter(self.name, segmenter)
        self.layer_bytes = _checked_layers(layer_bytes)
        if self.layer_bytes and image_layers > 1:
            raise ConfigError("layer_bytes and image_layers both define layers: give one of them")
        if self.layer_bytes and packing == "map-dependent":
            raise ConfigError(
                "layer_bytes: map-dependent packets need all of the map before any layer"
            )
        if chunk is not None:
            chunk = integer(self.name, "chunk", chunk, 1, 4096)
        self.model = model
        self.classes = classes
        self.tables = tables
        self.weights_sha256 = weights_sha256
        self.segmenter = segmenter
        self.aim = choice(self.name, "aim", aim, AIMS)
        self.realism = number(self.name, "realism", realism, 0, 1)
        if self.realism < 1 and not tables.refinements:
            raise ConfigError("sqgan realism: these weights have no refinement: leave it at 1")
        self.steps, self.steps_per_row = tuple(steps), steps_per_row
        if split is None:
            split = default_rows(len(tables.refinements), len(self.steps))
        given = split[aim] if isinstance(split, Mapping) else split
        self.relevance = torch.tensor([*(relevance or [1.0] * len(classes)), 0.0])
        self.packing = Packing(packing, fixed_length)
        self.device = torch.device(device)
        self.chunk = chunk
        self.trained_on = tuple(trained_on)
        self._remembered: OrderedDict[bytes, AnalysedPicture] = OrderedDict()
        self._recent = RecentDrawings()
        self._sender = Sender(
            path=RatePath(checked_rows(given, tables.streams, len(self.steps)), tables.streams),
            tables=tables,
            model=model,
            device=self.device,
            steps=self.steps,
            steps_per_row=steps_per_row,
            aim=self.aim,
            packing=self.packing,
            packet_bytes=self.packet_bytes,
            image_layers=self.image_layers,
            layer_bytes=self.layer_bytes,
            search=search,
        )
        self._tokens_of = lru_cache(maxsize=_READ)(self._read)

    @property
    def split(self) -> Rows:
        """Rows of the path of kept fractions. Assigned rows are checked: ConfigError."""
        return self._sender.path.rows

    @split.setter
    def split(self, rows: Split) -> None:
        checked = checked_rows(rows, self.tables.streams, len(self.steps))
        self._sender = replace(self._sender, path=RatePath(checked, self.tables.streams))

    @property
    def searches(self) -> bool:
        """Whether the transmitter searches for tokens."""
        return self._sender.search is not None

    def tell_search(self, tell: Callable[[int, int], None] | None) -> None:
        """Call `tell` after each pass of a search from now on, with the number of passes done and
        of all; None: do not any more.
        """
        if self._sender.search is not None:
            search = replace(self._sender.search, tell=tell)
            self._sender = replace(self._sender, search=search)

    @one_thread_each()
    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1] with int64 [N, H, W] maps, or the segmenter's.

        A native `quality` in (0, 1] is the position on the path where the stream ends. A budget
        below the bytes of the path's first point gives Unreachable. Raises ConfigError for a
        quality out of range and for channel uses, DataError for a picture too small or too large
        and for a map of another size or with ids of no class.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"pictures must be [N, 3, H, W], not {list(images.shape)}")
        height, width = images.shape[2:]
        check_size(height, width, "the picture")
        expected = [images.shape[0], height, width]
        if segmentation is not None and list(segmentation.shape) != expected:
            raise DataError(f"a map must be {expected}, not {list(segmentation.shape)}")
        if segmentation is not None:
            segmentation = self._checked(segmentation)
        if max(height, width) > MAX_SIDE:
            raise DataError(f"the picture is {width}x{height}: sqgan takes sides up to {MAX_SIDE}")
        budget, quality = rate.budget_bytes(height, width), rate.quality
        if quality is not None and not 0 < quality <= 1:
            raise ConfigError(
                f"sqgan quality={quality:g} is a share of all that can be sent: above 0, up to 1"
            )

        def answer(analysed: AnalysedPicture) -> Stream | Unreachable:
            if budget is not None:
                fitted = self._sender.fit(analysed, budget)
                if isinstance(fitted, int):
                    return Unreachable(self.name, height, width, budget, fitted)
                return self._stream(fitted, height, width, analysed.colour)
            assert quality is not None
            sent = self._sender.whole(analysed, max(1, round(quality * POINTS)))
            return self._stream(sent, height, width, analysed.colour)

        return self._analysed(images, segmentation, answer)

    def forget(self) -> None:
        """Drop what is known of pictures seen so far: the next runs all of the network again."""
        self._remembered.clear()
        self._recent.clear()

    @full_precision()
    @one_thread_each()
    def decode(self, received: Sequence[Received]) -> Decoded:
        """Rebuild pictures of one size; a picture without any token is an outage.

        Missing tokens are masked; missing or wrong packets raise nothing. The session holds how
        packets were made. Raises WeightsError for a session of other weights, DataError for one of
        another version.
        """
        if not received:
            raise ValueError("nothing to decode")
        height, width = received[0].session.height, received[0].session.width
        if any((r.session.height, r.session.width) != (height, width) for r in received):
            raise ValueError("pictures that are decoded together must be of one size")
        count = len(received)
        images = outage_images(count, height, width)
        maps = torch.full((count, height, width), NO_LABEL, dtype=torch.int64)
        outage = torch.ones(count, dtype=torch.bool)
        chunk = self._chunk(height, width)

        def decode(start: int) -> None:
            part = received[start : start + chunk]
            tokens = [self._tokens_of(one, height, width) for one in part]
            there = np.array([n for n, own in enumerate(tokens) if not own.empty])
            if not there.size:
                return
            rows = _whole(there, chunk)
            batch = [
                torch.from_numpy(np.stack([tokens[n].tokens[stream] for n in rows])).to(self.device)
                for stream in range(self.tables.streams)
            ]
            steps = torch.tensor([tokens[n].step for n in rows], device=self.device)
            lossy = torch.tensor([tokens[n].lossy for n in rows])
            with torch.inference_mode():
                pictures, labels = self.model.synthesise(
                    batch[1], batch[0], height, width, **self._refining(batch[2:], steps, lossy)
                )
                # A receiver shows 8 bits a channel, as the other codecs' decoders do.
                colours = [tokens[n].colour for n in there]
                shown = with_mean_colours(pictures[: there.size].float(), colours)
                shown = (shown * 255).round().cpu() / 255
                images[start + there] = shown
                maps[start + there] = labels[: there.size].cpu()
                outage[start + there] = False

        side_by_side(decode, range(0, count, chunk), self.device)
        return Decoded(images, maps, outage)

    def _refining(
        self, refinements: Sequence[Tensor], steps: Tensor, lossy: Tensor
    ) -> dict[str, Any]:
        """Return the arguments of a network with refinements beside the base's tokens."""
        if not self.tables.refinements:
            return {}
        layers = [(digits - ZERO, digits[..., 0] >= 0) for digits in refinements]
        recent = self._recent if len(steps) == 1 else None
        return {
            "refinements": layers,
            "step": steps,
            "realism": self.realism,
            "recent": recent,
            "lossy": lossy,
        }

    def _read(self, one: Received, height: int, width: int) -> _Read:
        """Return the tokens that arrived, and the step of their quantiser."""
        header, packing, step = one.session.header, self.packing, 0
        colour: bytes | None = None
        if begins_as_session(header):
            said = SessionHeader.from_bytes(header)
            self._check(said)
            packing, step, colour = said.packing, said.step, said.colour
        rows, columns = self.model.grid(height, width)
        row = self._sender.row(step)
        found = unpacketise(one.packets, rows, columns, self.tables, packing, row)
        lossy = None in one.packets
        return _Read((*found[:2], *map(tokens_of, found[2:])), step, lossy, colour)

    def token_fate(
        self, image: Tensor, segmentation: Tensor | None, sent: Stream, came: Received
    ) -> NDArray[np.uint8]:
        """Return the token's relevance and fate in each place: `sqlink.codecs.base.TokenFate`."""
        height, width = image.shape[1:]
        found: list[AnalysedPicture] = []

        def remember(analysed: AnalysedPicture) -> Unreachable:
            found.append(analysed)
            return Unreachable(self.name, height, width, 0, 0)

        self._analysed(image[None], None if segmentation is None else segmentation[None], remember)
        of_image = found[0].base[1].ranks
        relevance = 255 - np.floor(256 * of_image / of_image.size)
        whole = self._tokens_of(Received.whole(sent), height, width).tokens
        there = self._tokens_of(came, height, width).tokens
        fates = [
            np.where(there[stream] >= 0, CAME, np.where(whole[stream] >= 0, LOST, NOT_SENT))
            for stream in (0, 1)  # map, image
        ]
        layers = [relevance, fates[1], fates[0]]
        if self.tables.refinements:
            layers.append(_fate_of_finer(whole[2:], there[2:], relevance.shape))
        return np.stack(layers, axis=-1).astype(np.uint8)

    def parse(self, data: bytes) -> Stream:
        """Return the stream of a stored `.sqg`.

        Raises DataError if it is cut short or damaged, WeightsError if it is of other weights.
        """
        session, header, body = split_file(data)
        self._check(session)
        height, width, packet_bytes = session.height, session.width, session.packet_bytes
        check_size(height, width, "the .sqg stream's picture")
        if packet_bytes < MIN_PACKET_BYTES or not body:
            raise DataError("the .sqg stream is damaged: it has no packets")
        rows, columns = self.model.grid(height, width)
        if len(body) > 7 * rows * columns * packet_bytes:
            raise DataError("the .sqg stream is damaged: it has more packets than places")
        pieces = [body[n : n + packet_bytes] for n in range(0, len(body), packet_bytes)]
        row = self._sender.row(session.step)
        packets = parse_packets(pieces, rows, columns, self.tables, session.packing, row)
        return Stream(Session(self.name, height, width, header), tuple(packets))

    def _checked(self, segmentation: Tensor) -> Tensor:
        """Return the map as int64. Raises DataError for values that are not ids of a class."""
        if segmentation.is_floating_point():
            raise DataError(f"a map holds class ids, not {segmentation.dtype}: give integers")
        segmentation = segmentation.long()
        known = (segmentation >= 0) & (segmentation < len(self.classes))
        strange = segmentation[~(known | (segmentation == NO_LABEL))]
        if len(strange):  # `unique` sorts: not for every picture
            wrong = self.classes.unknown(strange.unique().cpu().numpy())
            raise DataError(
                f"the map holds the {listed(wrong)}: the classes of {self.classes.name} are 0 to "
                f"{len(self.classes) - 1}, and {NO_LABEL} is no label"
            )
        return segmentation

    @full_precision()
    def _analysed(
        self,
        images: Tensor,
        segmentation: Tensor | None,
        answer: Callable[[AnalysedPicture], Stream | Unreachable],
    ) -> list[Stream | Unreachable]:
        """Return `answer` of every picture's tokens.

        Tokens of recent pictures are remembered, so that a second rate does not run the network.
        """
        maps = [None] * len(images) if segmentation is None else segmentation.byte().cpu().unbind()
        given = list(zip(images.detach().cpu(), maps, strict=True))
        keys = side_by_side(lambda pair: _key(*pair), given, torch.device("cpu"))
        known = {key: self._remembered[key] for key in keys if key in self._remembered}
        first = {key: n for n, key in reversed(list(enumerate(keys))) if key not in known}
        missing = np.array(sorted(first.values()), dtype=np.int64)
        chunk = self._chunk(*images.shape[2:])
        segmenter = self._segmenter() if segmentation is None and missing.size else None

        def encode(start: int) -> list[tuple[bytes, AnalysedPicture, Stream | Unreachable]]:
            which = missing[start : start + chunk]
            rows = torch.from_numpy(_whole(which, chunk))
            with torch.inference_mode():
                batch = images[rows.to(images.device)].to(self.device, torch.float32)
                if segmentation is not None:
                    labels = segmentation[rows.to(segmentation.device)]
                else:
                    assert segmenter is not None
                    with torch.autocast(
                        self.device.type, torch.bfloat16, enabled=self.precision == PRECISIONS[1]
                    ):
                        labels = segmenter.segment(batch)
                analysis = self.model.analyse(batch, labels.to(self.device))
                colours = mean_colours(batch)
            found = [
                AnalysedPicture.of(analysis, row, colours[row], self.relevance)
                for row in range(which.size)
            ]
            return [(keys[n], one, answer(one)) for n, one in zip(which, found, strict=True)]

        done: dict[bytes, Stream | Unreachable] = {}
        for part in side_by_side(encode, range(0, missing.size, chunk), self.device):
            for key, analysed, made in part:
                known[key], done[key] = analysed, made
        self._remembered.update(known)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        others = [key for key in dict.fromkeys(keys) if key not in done]
        answers = side_by_side(lambda key: answer(known[key]), others, self.device)
        done.update(zip(others, answers, strict=True))
        return [done[key] for key in keys]

    def _chunk(self, height: int, width: int) -> int:
        """Return how many pictures of a size the network processes at once."""
        if self.chunk is not None:
            return self.chunk
        most, pixels = (1, 2 << 20) if self.device.type == "cpu" else (16, 4 << 20)
        return max(1, min(most, pixels // (height * width)))

    def _segmenter(self) -> Segmenter:
        """Return the segmenter, loaded on first use."""
        if isinstance(self.segmenter, str):
            from sqlink.segmentation import load_segmenter

            self.segmenter = load_segmenter(self.segmenter, device=self.device)
        return self.segmenter

    def _stream(self, sent: SentPackets, height: int, width: int, colour: bytes) -> Stream:
        header = SessionHeader(
            self.packing,
            height,
            width,
            self.packet_bytes,
            sent.step,
            bytes.fromhex(self.weights_sha256)[:WEIGHTS_BYTES],
            colour,
        ).to_bytes(packet.data for packet in sent.packets)
        return Stream(Session(self.name, height, width, header), sent.packets)

    def _check(self, session: SessionHeader) -> None:
        """Raise WeightsError for a session of other weights, DataError for an unknown step."""
        own = self.weights_sha256[: 2 * WEIGHTS_BYTES]
        if session.weights.hex() != own:
            raise WeightsError(
                f"the stream was made with weights {session.weights.hex()}..., these are {own}...: "
                "give the weights it was made with"
            )
        if session.step >= max(1, len(self.steps)):
            raise DataError(
                f"the .sqg stream is damaged: these weights have no quantiser step {session.step}"
            )


@register("sqgan")
def sqgan(
    weights: str | Path = "streets",
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    device: torch.device | str = "cpu",
    segmenter: Segmenter | str = "tx",
    split: Split | Mapping[str, Split] | None = None,
    aim: str = AIMS[0],
    realism: float = 1.0,
    image_layers: int = 1,
    layer_bytes: Sequence[int] = (),
    packing: str = MODES[0],
    fixed_length: bool = False,
    precision: str = PRECISIONS[0],
    search_passes: int = 0,
    lpips_weights: str | Path | None = None,
) -> SQGANCodec:
    """Return the codec `sqgan` with shipped or own weights; options are those of `SQGANCodec`.

    precision: of all networks' convolutions and matrix products, one of PRECISIONS. With `bfloat16`
    a CPU that has instructions for it (`amx_bf16`) decodes in about half the time, and results
    differ a little from those in float32; the two ends of a link may differ in it.
    search_passes: number of passes through the receiver's networks, forward and back, in which the
    transmitter searches for the picture's codes and the refinement's digits that look better by
    LPIPS and to `tx` at realism 1, for the same bytes; 0 to 1000. Each takes about three times as
    long as decoding. lpips_weights: folder of the LPIPS files for it; None: that of the environment
    variable.

    Raises ConfigError for a search with `aim: faithful` or without refinements, WeightsError where
    the weights are missing, damaged or do not fit the model they name.
    """
    from sqlink.model.sqgan import load_model

    passes = integer("sqgan", "search_passes", search_passes, 0, 1000)
    if passes and aim == "faithful":
        raise ConfigError(
            "sqgan search_passes: a search is for LPIPS: leave it at 0 for 'faithful'"
        )
    with torch.inference_mode(False):  # a search needs gradients through the network
        loaded = load(weights, "sqgan")
        model = load_model(loaded, str(weights)).to(device)
        search = _search(passes, lpips_weights, device) if passes else None
    if passes and model.refinement is None:
        raise ConfigError("sqgan search_passes: these weights have no refinement: leave it at 0")
    model.in_bfloat16 = choice("sqgan", "precision", precision, PRECISIONS) == PRECISIONS[1]
    tables = Tables.from_tensors(loaded.tensors)
    if (tables.map.size, tables.image.size) != (model.config.map_codes, model.config.image_codes):
        raise WeightsError(f"weights '{weights}' have tables of another size than their codebooks")
    steps: tuple[float, ...] = ()
    steps_per_row = 1
    if model.refinement is not None:
        steps = model.refinement.config.steps
        steps_per_row = model.refinement.config.steps_per_row
    if split is None:
        text = loaded.metadata.get("rate_path")
        try:
            split = (
                None if text is None else stored_rows(json.loads(text), tables.streams, len(steps))
            )
        except (ConfigError, ValueError) as error:
            raise WeightsError(f"weights '{weights}' have a wrong rate_path: {error}") from None
    return SQGANCodec(
        model,
        tables,
        loaded.sha256,
        packet_bytes=packet_bytes,
        segmenter=segmenter,
        split=split,
        aim=aim,
        realism=realism,
        relevance=_relevance(loaded.metadata.get("task")),
        image_layers=image_layers,
        layer_bytes=layer_bytes,
        packing=packing,
        fixed_length=fixed_length,
        search=search,
        device=device,
        precision=precision,
        trained_on=[name for name in loaded.metadata.get("trained_on", "").split(",") if name],
        classes=class_set_of_size(model.config.num_classes),
        steps=steps,
        steps_per_row=steps_per_row,
    )


def _search(
    passes: int, lpips_weights: str | Path | None, device: torch.device | str
) -> TokenSearch:
    """Return the search for tokens. Raises WeightsError where LPIPS' files are missing."""
    from sqlink.metrics.lpips import load_lpips
    from sqlink.model.token_search import PerceptualDistance, TokenSearch
    from sqlink.segmentation import load_segmenter

    lpips = load_lpips(lpips_weights).to(device)
    tx: Any = load_segmenter("tx", device=device)
    return TokenSearch(PerceptualDistance(lpips, tx.network), passes)


def _key(picture: Tensor, segmentation: Tensor | None) -> bytes:
    """Return the key of a picture [3, H, W] and its map uint8 [H, W], if it was given."""
    digest = hashlib.blake2b(repr(tuple(picture.shape)).encode())
    for part in (picture, segmentation):
        digest.update(b"" if part is None else part.contiguous().numpy().data)
    return digest.digest()


def _whole(which: NDArray[np.int64], chunk: int) -> NDArray[np.int64]:
    """Fill `which` up to a whole chunk by repeating its last entry."""
    return np.pad(which, (0, chunk - which.size), mode="edge")


def _checked_layers(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return rising sizes in bytes. Raises ConfigError for anything else."""
    given = tuple(sizes) if isinstance(sizes, (list, tuple)) else (sizes,)
    whole = [s for s in given if isinstance(s, int) and not isinstance(s, bool) and s > 0]
    if len(whole) < len(given) or len(whole) >= LAYERS or whole != sorted(set(whole)):
        raise ConfigError(
            f"layer_bytes={sizes!r} must be up to {LAYERS - 1} sizes in bytes, rising"
        )
    return tuple(whole)


def _fate_of_finer(
    whole: Sequence[NDArray[np.int64]],
    there: Sequence[NDArray[np.int64]],
    grid: tuple[int, ...],
) -> NDArray[np.int64]:
    """Return the fate of the refinements in each place of the base's grid, int64 [h, w].

    whole, there: digits of each layer that were sent and that arrived, [k h, k w, D], -1 elsewhere.
    A place counts as lost where any of its tokens is lost.
    """
    rows, columns = grid
    sent, lost = np.zeros(grid, dtype=bool), np.zeros(grid, dtype=bool)
    for all_, came in zip(whole, there, strict=True):
        cells = (rows, all_.shape[0] // rows, columns, all_.shape[1] // columns)
        was_sent = (all_[..., 0] >= 0).reshape(cells)
        sent |= was_sent.any(axis=(1, 3))
        lost |= (was_sent & (came[..., 0] < 0).reshape(cells)).any(axis=(1, 3))
    return np.where(lost, LOST, np.where(sent, CAME, NOT_SENT))


def _relevance(record: str | None) -> tuple[float, ...]:
    """Return the relevance of each class to the task that weights were trained for."""
    if record is None:
        return ()
    from sqlink.training.task import Task

    return Task.from_json(record).image_weights
