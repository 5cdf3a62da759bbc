"""SQ-GAN as a codec: tokens of the picture and of its map, within a budget of true bytes.

    images, map ─ model.analyse ─ indices and scores of every place, of every stream
                    └─ keep the most relevant of each ─ packetise ─ Stream
    packets that came ─ unpacketise ─ indices, -1 where masked or lost ─ model.synthesise ─ Decoded

The streams are the base's, of map and picture at 1/16, and, where the weights have them, the two of
the refinement, in units of 2x2 tokens (`sqlink.bitstream.refinement_table`), whose digits are
quantised in one of the weights' steps.

A stored `.sqg` is an 18-byte session and then the packets, all of `packet_bytes` but the last:

    offset 0   "SQG"            3 bytes
           3   version, packing 1, four bits each: 4, and how tokens became packets
           4   height, width    2 + 2, big-endian
           8   packet_bytes     2
          10   step             1, which of the weights' quantiser steps, 0 the coarsest
          11   weights          3, the first bytes of their file's SHA-256
          14   CRC-32           4, of all the other bytes of the file

A budget is filled along a path of kept fractions of the streams, (m_map, m_image) or (m_map,
m_image, m_8, m_4, step), which the weights bring, one for each aim, or the user gives: the farthest
point of it whose bytes, packets made, fit, or one that fills 99 % of it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from channels.config.checks import choice, flag, integer, number
from sqlink.bitstream.independent import LAYERS
from sqlink.bitstream.packets import (
    MIN_PACKET_BYTES,
    MODES,
    Packing,
    Tokens,
    packetise,
    parse_packets,
    unpacketise,
)
from sqlink.bitstream.refinement_table import ZERO, RefinementTable, tokens_of, units_of
from sqlink.bitstream.tables import Tables
from sqlink.bitstream.token_selection import keep, layers, ranks
from sqlink.codecs.base import (
    CAME,
    DEFAULT_PACKET_BYTES,
    LOST,
    MAX_PACKET_BYTES,
    NOT_SENT,
    Decoded,
    Packet,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    outage_images,
    register,
)
from sqlink.data.classes import CAMVID, NO_LABEL, ClassSet, class_set_of_size, listed
from sqlink.data.pictures import check_size
from sqlink.errors import ConfigError, DataError, WeightsError
from sqlink.runtime.precision import full_precision
from sqlink.runtime.threads import side_by_side
from sqlink.segmentation import check_segmenter
from sqlink.weights.manifest import load

if TYPE_CHECKING:
    from sqlink.model.refinement import Coefficients
    from sqlink.model.sqgan import Analysis, Layer
    from sqlink.segmentation.base import Segmenter

DEFAULT_SPLIT = ((0.03, 0.012), (0.25, 0.12), (0.35, 0.35), (0.45, 0.70), (1.0, 1.0))
"""Path of kept fractions (map, image) where the weights bring none."""
REFINED_SPLIT = (
    (0.03, 0.012, 0.0, 0.0, 0),
    (0.25, 0.12, 0.0, 0.0, 0),
    (0.35, 0.35, 0.05, 0.0, 0),
    (0.45, 0.70, 0.2, 0.0, 0),
    (0.8, 0.9, 0.5, 0.1, 0),
    (1.0, 1.0, 1.0, 0.6, 0),
    (1.0, 1.0, 1.0, 1.0, 0),
)
"""The same with refinements, (map, image, 1/8, 1/4, step), for every aim, at the coarsest step."""
_OF_A_STEP = (0.6, 1.0)
"""Shares of the refinements between which each finer step goes."""

AIMS = ("legible", "natural", "faithful")
"""What the transmitter spends for: what a segmenter still sees of the classes that matter to the
task; LPIPS; squared error. Each ranks the refinement's units by its own gain and has its own path.
"""
_LEGIBLE = (0.0, 0.5, 1.0)
"""Weights of the kinds of gain (`sqlink.model.refinement.KINDS`) for `legible`; the second one by
the relevance of what is there.
"""

_MASK_BITS = 3.0
"""About what it takes to say that a unit of the refinement is sent."""

_HEADER = struct.Struct(">3sBHHHB3sI")
SESSION_BYTES = _HEADER.size
_MAGIC = b"SQG"
_VERSION = 4
_FILLED = 0.99
"""Share of a budget that is enough."""
_AIM = 0.5
"""How much of what may stay free a guess leaves free."""
_USUAL_BITS = (7.0, 8.7)
"""Of a token of the map and of the picture, all told: where the search for a budget begins."""
_STEPS = 4096
"""Points of the path that a budget is fitted to."""
_FINER_TAKES = 1.3
"""Power of the quantiser's step that bytes fall with, until a step was tried."""
_REMEMBERED = 128
"""Pictures whose analysis is kept for the next rate."""
_READ = 8
"""Receptions whose tokens are kept, for who decodes one and asks for its fate."""

Split = Sequence[Sequence[float]]


class TokenModel(Protocol):
    """The two halves of a network; see `sqlink.model.sqgan.SQGAN`."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens."""
        ...

    def analyse(self, images: Tensor, segmentation: Tensor) -> Analysis:
        """Indices and scores of every place."""
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
    ) -> tuple[Tensor, Tensor]:
        """Pictures and maps from indices, -1 where masked."""
        ...

    def layers(self, coefficients: Coefficients, step: int) -> tuple[Layer, Layer]:
        """The refinement's layers at one of the quantiser's steps."""
        ...


@dataclass(frozen=True)
class _Ranked:
    """A stream's tokens, or units of them, of every place.

    indices: int64 [h, w], or int16 [h, w, S] of units. ranks: int64 [h, w], 0 the most relevant.
    bits: float64 [P + 1], about what the first so many take.
    """

    indices: NDArray[Any]
    ranks: NDArray[np.int64]
    bits: NDArray[np.float64]

    @classmethod
    def of(cls, indices: NDArray[Any], scores: NDArray[Any], bits: NDArray[np.float64]) -> _Ranked:
        """scores, bits: [h, w], of every place."""
        rank = ranks(scores)
        ordered = np.zeros(rank.size + 1)
        ordered[1 + rank.reshape(-1)] = bits.reshape(-1)
        return cls(indices, rank, np.cumsum(ordered))


@dataclass(frozen=True)
class _Analysed:
    """One picture's tokens.

    base: of map and image. coefficients: of the refinement, [1, ...] each, and matters, how
    relevant what is there is, [1, k h, k w] for each layer; None and () without one. finer: the
    refinement's streams by quantiser step, as far as they were needed. sizes: bytes of the points
    of the path that were tried, by the points below them that end layers and the step that is set.
    """

    base: tuple[_Ranked, _Ranked]
    coefficients: Coefficients | None
    matters: tuple[Tensor, ...]
    finer: dict[int, tuple[_Ranked, ...]]
    sizes: dict[tuple[tuple[int, ...], int | None], dict[int, int]]


@dataclass(frozen=True)
class _Read:
    """Tokens that came: indices int64 [h, w] of map and image, digits int16 [k h, k w, D] of the
    refinements, -1 where nothing came; not to be written to. step: of the quantiser.
    """

    tokens: tuple[NDArray[Any], ...]
    step: int

    @property
    def empty(self) -> bool:
        """Whether nothing came."""
        return not any((part >= 0).any() for part in self.tokens)


@dataclass(frozen=True)
class _Sent:
    """Packets, and the quantiser's step that their digits were made with."""

    packets: tuple[Packet, ...]
    step: int


@dataclass(frozen=True)
class _Points:
    """Points of a path: how many tokens or units of every stream each keeps, and its step."""

    counts: list[NDArray[np.int64]]
    steps: NDArray[np.int64]


class SQGANCodec:
    """The codec around a model and its tables; `load_codec("sqgan")` makes one from weights.

    weights_sha256: hex, what a stored file names its weights by. segmenter: what makes the map
    where `encode` gets none, or its name. split: the path of kept fractions of the streams, each
    rising, for every aim, or one for each. aim: of AIMS, what the bytes are spent for. realism: of
    the receiver, 0 the most probable picture, without invented texture, to 1 the most natural one;
    for weights with refinements. relevance: of the classes to the task, in [0, 1].
    image_layers: layers of relevance of the image's tokens (1..4): more than one brings the most
    relevant first, at more bytes. layer_bytes: up to three sizes of packets, in bytes, rising, for
    streams within a budget: the first so many bytes of the packets are then what a budget of so
    many, and the session's, would buy of the map and of the picture, or a little less; sizes beyond
    the budget are passed over. `independent` packets
    say the mask anew in each layer, a `single` stream says nothing twice. packing: `independent`
    packets, `map-dependent` ones or a `single` stream; see `sqlink.bitstream.packets`.
    fixed_length: indices of log2 of the codebook's size bits each, an ablation. chunk: pictures
    that the network takes at once, always, so that a picture's result does not depend on the
    others; None: 1 on a CPU, up to 16 on CUDA, fewer of large ones. trained_on: metrics that were
    training losses of the weights, to be marked wherever they are shown. classes: what maps hold.
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
        device: torch.device | str = "cpu",
        chunk: int | None = None,
        trained_on: Sequence[str] = (),
        classes: ClassSet = CAMVID,
        steps: Sequence[float] = (),
    ) -> None:
        self.packet_bytes = integer(
            self.name, "packet_bytes", packet_bytes, MIN_PACKET_BYTES, MAX_PACKET_BYTES
        )
        self.image_layers = integer(self.name, "image_layers", image_layers, 1, LAYERS)
        packing = choice(self.name, "packing", packing, MODES)
        flag(self.name, "fixed_length", fixed_length)
        check_segmenter(self.name, segmenter)
        self.layer_bytes = _checked_layers(layer_bytes)
        if self.layer_bytes and image_layers > 1:
            raise ConfigError("layer_bytes and image_layers both say what layers are: give one")
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
        self.steps = tuple(steps)
        if split is None:
            finer = [
                (1.0, 1.0, share, share, step)
                for step in range(1, len(self.steps))
                for share in _OF_A_STEP
            ]
            split = [*REFINED_SPLIT, *finer] if tables.refinements else DEFAULT_SPLIT
        given = split[aim] if isinstance(split, Mapping) else split
        self.split = _checked_split(given, tables.streams, len(self.steps))
        self.relevance = torch.tensor([*(relevance or [1.0] * len(classes)), 0.0])
        self.packing = Packing(packing, fixed_length)
        self.device = torch.device(device)
        self.chunk = chunk
        self.trained_on = tuple(trained_on)
        self._remembered: OrderedDict[bytes, _Analysed] = OrderedDict()
        self._points: dict[tuple[int, tuple[tuple[float, ...], ...]], _Points] = {}
        self._tokens_of = lru_cache(maxsize=_READ)(self._read)

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1] with int64 [N, H, W] maps, or the segmenter's.

        A native `quality` in (0, 1] is how far along the path the stream goes. Unreachable below
        the bytes of the path's first point. Raises ConfigError for a quality out of range and for
        channel uses, DataError for a picture too small or too large and for a map of another size
        or with ids that are no class.
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
        if max(height, width) > 65535:
            raise DataError(f"the picture is {width}x{height}: sqgan takes sides up to 65535")
        budget, quality = rate.budget_bytes(height, width), rate.quality
        if quality is not None and not 0 < quality <= 1:
            raise ConfigError(
                f"sqgan quality={quality:g} is a share of all that can be sent: above 0, up to 1"
            )

        def answer(analysed: _Analysed) -> Stream | Unreachable:
            if budget is not None:
                return self._fit(analysed, height, width, budget)
            assert quality is not None
            sent = self._packets_at(analysed, max(1, round(quality * _STEPS)))
            return self._stream(sent, height, width)

        return self._analysed(images, segmentation, answer)

    def forget(self) -> None:
        """Drop the analyses of pictures seen so far: the next encoding runs the network again."""
        self._remembered.clear()

    @full_precision()
    def decode(self, received: Sequence[Received]) -> Decoded:
        """Rebuild pictures of one size; what did not come is masked. An outage without any token.

        Never raises for missing or wrong packets. How they were made the session says. Raises
        WeightsError where it names other weights than this codec's, DataError where it is of
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
            with torch.inference_mode():
                pictures, labels = self.model.synthesise(
                    batch[1], batch[0], height, width, **self._refining(batch[2:], steps)
                )
                # A receiver shows 8 bits a channel, as the other codecs' decoders do.
                shown = (pictures[: there.size].float() * 255).round().cpu() / 255
                images[start + there] = shown
                maps[start + there] = labels[: there.size].cpu()
                outage[start + there] = False

        side_by_side(decode, range(0, count, chunk), self.device)
        return Decoded(images, maps, outage)

    def _refining(self, refinements: Sequence[Tensor], steps: Tensor) -> dict[str, Any]:
        """What a network with refinements is told beside the base's tokens."""
        if not self.tables.refinements:
            return {}
        layers = [(digits - ZERO, digits[..., 0] >= 0) for digits in refinements]
        return {"refinements": layers, "step": steps, "realism": self.realism}

    def _read(self, one: Received, height: int, width: int) -> _Read:
        """The tokens that came, and the step of their quantiser."""
        header, packing, step = one.session.header, self.packing, 0
        if len(header) == _HEADER.size and header[:3] == _MAGIC:
            _, kind, _, _, _, step, weights, _ = _HEADER.unpack(header)
            packing = _packing(kind)
            self._check_weights(weights)
            self._check_step(step)
        rows, columns = self.model.grid(height, width)
        found = unpacketise(one.packets, rows, columns, self.tables, packing, step)
        return _Read((*found[:2], *map(tokens_of, found[2:])), step)

    def token_fate(
        self, image: Tensor, segmentation: Tensor | None, sent: Stream, came: Received
    ) -> NDArray[np.uint8]:
        """Relevance and fate of the token in every place; see `sqlink.codecs.base.TokenFate`."""
        height, width = image.shape[1:]
        found: list[_Analysed] = []

        def remember(analysed: _Analysed) -> Unreachable:
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
        """A stored `.sqg` back into its stream.

        Raises DataError if it is cut short or damaged, WeightsError if it is of other weights.
        """
        if len(data) < _HEADER.size or data[:3] != _MAGIC:
            raise DataError(f"no .sqg stream: {len(data)} bytes that do not begin as one")
        _, kind, height, width, packet_bytes, step, weights, crc = _HEADER.unpack_from(data)
        packing = _packing(kind)
        header, body = data[: _HEADER.size], data[_HEADER.size :]
        if zlib.crc32(body, zlib.crc32(header[:-4])) != crc:
            raise DataError("the .sqg stream is cut short or damaged: its CRC-32 does not hold")
        self._check_weights(weights)
        self._check_step(step)
        check_size(height, width, "the .sqg stream's picture")
        if packet_bytes < MIN_PACKET_BYTES or not body:
            raise DataError("the .sqg stream is damaged: it has no packets")
        rows, columns = self.model.grid(height, width)
        if len(body) > 7 * rows * columns * packet_bytes:
            raise DataError("the .sqg stream is damaged: it has more packets than places")
        pieces = [body[n : n + packet_bytes] for n in range(0, len(body), packet_bytes)]
        packets = parse_packets(pieces, rows, columns, self.tables, packing, step)
        return Stream(Session(self.name, height, width, header), tuple(packets))

    def _checked(self, segmentation: Tensor) -> Tensor:
        """The map as int64. Raises DataError if it holds no ids, or ids of no class."""
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
        answer: Callable[[_Analysed], Stream | Unreachable],
    ) -> list[Stream | Unreachable]:
        """What `answer` makes of the tokens of every picture.

        Tokens seen of late are remembered: a second rate is cheap.
        """
        maps = [None] * len(images) if segmentation is None else segmentation.byte().cpu().unbind()
        given = list(zip(images.detach().cpu(), maps, strict=True))
        keys = side_by_side(lambda pair: _key(*pair), given, torch.device("cpu"))
        known = {key: self._remembered[key] for key in keys if key in self._remembered}
        first = {key: n for n, key in reversed(list(enumerate(keys))) if key not in known}
        missing = np.array(sorted(first.values()), dtype=np.int64)
        chunk = self._chunk(*images.shape[2:])
        segmenter = self._segmenter() if segmentation is None and missing.size else None

        def encode(start: int) -> list[tuple[bytes, _Analysed, Stream | Unreachable]]:
            which = missing[start : start + chunk]
            rows = torch.from_numpy(_whole(which, chunk))
            with torch.inference_mode():
                batch = images[rows.to(images.device)].to(self.device, torch.float32)
                if segmentation is not None:
                    labels = segmentation[rows.to(segmentation.device)]
                else:
                    assert segmenter is not None
                    labels = segmenter.segment(batch)
                analysis = self.model.analyse(batch, labels.to(self.device))
            found = [self._ranked(analysis, row) for row in range(which.size)]
            return [(keys[n], one, answer(one)) for n, one in zip(which, found, strict=True)]

        done: dict[bytes, Stream | Unreachable] = {}
        for part in side_by_side(encode, range(0, missing.size, chunk), self.device):
            for key, analysed, made in part:
                known[key], done[key] = analysed, made
        self._remembered.update(known)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return [done[key] if key in done else answer(known[key]) for key in keys]

    def _ranked(self, analysis: Analysis, row: int) -> _Analysed:
        """One picture of a batch."""
        map_, image = (
            _Ranked.of(
                indices[row].cpu().numpy(),
                scores[row].cpu().numpy(),
                np.full(tuple(scores.shape[1:]), bits),
            )
            for indices, scores, bits in (
                (analysis.map_indices, analysis.map_scores, _USUAL_BITS[0]),
                (analysis.image_indices, analysis.image_scores, _USUAL_BITS[1]),
            )
        )
        if analysis.finer is None:
            return _Analysed((map_, image), None, (), {}, {})
        relevance = self.relevance.to(self.device).view(1, -1, 1, 1)
        matters = (analysis.finer.shares[row : row + 1] * relevance).sum(1, keepdim=True).cpu()
        both = F.avg_pool2d(matters, 2).squeeze(1), matters.squeeze(1)
        own = analysis.finer.coefficients.row(row)
        return _Analysed((map_, image), own, both, {}, {})

    def _streams(self, analysed: _Analysed, step: int) -> tuple[_Ranked, ...]:
        """All streams of a picture, at a step of the quantiser."""
        if analysed.coefficients is None:
            return analysed.base
        if step not in analysed.finer:
            with torch.inference_mode():
                layers = self.model.layers(analysed.coefficients.to(self.device), step)
            analysed.finer[step] = tuple(
                self._units(layer, matters, table, step)
                for layer, matters, table in zip(
                    layers, analysed.matters, self.tables.refinements, strict=True
                )
            )
        return (*analysed.base, *analysed.finer[step])

    def _units(self, layer: Layer, matters: Tensor, table: RefinementTable, step: int) -> _Ranked:
        """Units of a layer, ranked by what they are worth to the aim."""
        units = units_of(layer.digits[0].cpu().numpy() + np.int16(ZERO))
        gains = layer.gains.cpu()
        if self.aim == "faithful":
            worth = gains[:, 0]
        elif self.aim == "natural":
            worth = gains[:, 1]
        else:
            worth = _LEGIBLE[1] * matters * gains[:, 1] + _LEGIBLE[2] * gains[:, 2]
        scores = F.avg_pool2d(worth.unsqueeze(1), 2)[0, 0].numpy()
        return _Ranked.of(units, scores, table.usual_bits(units, step) + _MASK_BITS)

    def _chunk(self, height: int, width: int) -> int:
        """Pictures of a size that the network takes at once."""
        if self.chunk is not None:
            return self.chunk
        most, pixels = (1, 2 << 20) if self.device.type == "cpu" else (16, 4 << 20)
        return max(1, min(most, pixels // (height * width)))

    def _segmenter(self) -> Segmenter:
        """The segmenter, loaded when first needed."""
        if isinstance(self.segmenter, str):
            from sqlink.segmentation import load_segmenter

            self.segmenter = load_segmenter(self.segmenter, device=self.device)
        return self.segmenter

    def _fit(
        self, analysed: _Analysed, height: int, width: int, budget: int
    ) -> Stream | Unreachable:
        """The most of the path that fits the budget, or what fills 99 % of it.

        The answer does not depend on which rates were asked for before.
        """
        point, sent = self._farthest(analysed, budget, (), None)
        if point is None:
            lowest = analysed.sizes[(), None][0]
            return Unreachable(self.name, height, width, budget, lowest)
        below: tuple[int, ...] = ()
        step = sent.step if self.layer_bytes else None
        for size in self.layer_bytes:
            if size + SESSION_BYTES < budget:
                end, _ = self._farthest(analysed, size + SESSION_BYTES, below, step)
                if end is not None and max((-1, *below)) < end < _STEPS:
                    below = (*below, end)
        if below:
            end, layered = self._farthest(analysed, budget, below, step)
            if end is not None:
                sent = layered
        return self._stream(sent, height, width)

    def _farthest(
        self, analysed: _Analysed, budget: int, below: tuple[int, ...], step: int | None
    ) -> tuple[int | None, _Sent]:
        """The farthest point of the path, and its packets, that fits the budget, or one that fills
        99 % of it; None where none does. below: points that are layers of their own. step: of the
        quantiser, at all points; None: of each point.

        Bytes are nearly in proportion to what tokens usually take, so a few guesses do.
        """
        sizes = analysed.sizes.setdefault((below, step), {})
        made: dict[int, _Sent] = {}

        def size(point: int) -> int:
            if point not in sizes:
                made[point] = self._packets_at(analysed, point, below, step)
                sizes[point] = SESSION_BYTES + sum(len(p.data) for p in made[point].packets)
            return sizes[point]

        low, high, tries = -1, _STEPS + 1, 0  # fits; does not
        goal = budget - _AIM * (1 - _FILLED) * budget
        # What this search has seen, and no other: the answer must not depend on rates of before.
        known = {self._step_at(analysed, _STEPS // 2, step)}
        usual = self._usual_sizes(analysed, step, known)
        guess = int(np.searchsorted(usual, goal, side="right")) - 1
        tried: list[int] = []
        while high - low > 1 and (low < 0 or sizes[low] < _FILLED * budget - 1):
            tries += 1
            if tries > 5 and tries % 2:  # should guesses creep
                guess = (low + high) // 2
            point = min(max(guess, low + 1), high - 1)
            tried.append(point)
            if size(point) <= budget:
                low = point
            else:
                high = point
                # All may take fewer bytes than nearly all, which needs a mask.
                if point > 0.8 * _STEPS and size(_STEPS) <= budget:
                    low = _STEPS
                    break
            # On the line through the two nearest points that were tried, or through nothing.
            known.add(self._step_at(analysed, point, step))
            usual = self._usual_sizes(analysed, step, known)
            near = sorted(tried, key=lambda one: abs(sizes[one] - goal))[:2]
            slope = sizes[point] / usual[point]
            if len(near) > 1 and usual[near[0]] != usual[near[1]]:
                rise = (sizes[near[1]] - sizes[near[0]]) / (usual[near[1]] - usual[near[0]])
                slope = min(max(rise, slope / 4), 4 * slope)
            wanted = usual[near[0]] + (goal - sizes[near[0]]) / slope
            guess = int(np.searchsorted(usual, wanted, side="right")) - 1
            if high > _STEPS and guess > 0.9 * _STEPS:
                guess = _STEPS
        if low < 0 or (low < _STEPS // 64 and size(0) > budget):
            return None, _Sent((), 0)
        return low, made[low] if low in made else self._packets_at(analysed, low, below, step)

    def _path(self, analysed: _Analysed) -> _Points:
        """All points of the path, for a picture of that size."""
        key = analysed.base[0].ranks.size, self.split
        if key not in self._points:
            self._points[key] = self._at(np.arange(_STEPS + 1), key[0])
        return self._points[key]

    def _step_at(self, analysed: _Analysed, point: int, step: int | None) -> int:
        """The quantiser's step of a point, if none is set."""
        return int(self._path(analysed).steps[point]) if step is None else step

    def _usual_sizes(
        self, analysed: _Analysed, step: int | None, known: Collection[int]
    ) -> NDArray[np.float64]:
        """About how many bytes each point of the path takes, rising; [_STEPS + 1].

        known: the quantiser's steps whose tokens may be looked at; others take more or fewer bytes
        than the nearest of these.
        """
        points = self._path(analysed)
        total = np.full(_STEPS + 1, SESSION_BYTES + 8.0)
        for stream, kept in zip(analysed.base, points.counts, strict=False):
            total += stream.bits[kept] / 8
        if analysed.coefficients is None:
            return total
        steps = points.steps if step is None else np.full(_STEPS + 1, step)
        for own in np.unique(steps).tolist():
            nearest_ = min(known, key=lambda one: (abs(one - own), one))
            factor = (self.steps[nearest_] / self.steps[own]) ** _FINER_TAKES
            here = steps == own
            finer = self._streams(analysed, nearest_)[2:]
            for stream, kept in zip(finer, points.counts[2:], strict=True):
                total[here] += factor * stream.bits[kept[here]] / 8
        return np.maximum.accumulate(total)

    def _packets_at(
        self,
        analysed: _Analysed,
        point: int,
        below: tuple[int, ...] = (),
        step: int | None = None,
    ) -> _Sent:
        """The packets of a point of the path, with layers that end at those below it."""
        which = np.array([*(one for one in below if one < point), point])
        found = self._at(which, analysed.base[0].ranks.size)
        if step is None:
            step = int(found.steps[-1])
        counts = [np.minimum(own, own[-1]) for own in found.counts]
        streams = self._streams(analysed, step)
        return _Sent(tuple(self._packets(streams, step, counts)), step)

    def _at(self, points: NDArray[np.int64], places: int) -> _Points:
        """What points of the path, 0.._STEPS, keep of a picture of so many base tokens."""
        rows = np.array(self.split)
        steps = rows[:, 4] if self.tables.refinements else np.zeros(len(rows))
        begin = np.flatnonzero(steps[:-1] == steps[1:])  # nothing lies between rows of two steps
        at = points / _STEPS * len(begin)
        which = np.minimum(at.astype(np.int64), len(begin) - 1)
        first = begin[which]
        sizes = (places, places, places, 4 * places)
        least = (1, 1, 0, 0)
        counts = []
        for stream in range(self.tables.streams):
            own = rows[:, stream]
            share = own[first] + (at - which) * (own[first + 1] - own[first])
            kept = np.rint(share * sizes[stream]).astype(np.int64)
            counts.append(np.maximum(least[stream], kept))
        return _Points(counts, steps[first].astype(np.int64))

    def _packets(
        self, streams: Sequence[_Ranked], step: int, counts: Sequence[NDArray[np.int64]]
    ) -> list[Packet]:
        """counts: tokens or units of every stream with which each layer ends, rising."""
        kept: list[NDArray[Any]] = []
        layer: list[NDArray[np.int64]] = []
        for order, (stream, ends) in enumerate(zip(streams, counts, strict=True)):
            kept.append(keep(stream.indices, stream.ranks, int(ends[-1])))
            if order > 0 and self.image_layers > 1:
                layer.append(layers(stream.ranks, int(ends[-1]), self.image_layers))
            else:
                layer.append(np.searchsorted(ends[:-1], stream.ranks, side="right"))
        finer = tuple(zip(kept[2:], layer[2:], strict=True))
        tokens = Tokens(kept[0], kept[1], layer[0], layer[1], finer, step)
        return packetise(tokens, self.tables, self.packet_bytes, self.packing)

    def _stream(self, sent: _Sent, height: int, width: int) -> Stream:
        weights = bytes.fromhex(self.weights_sha256[:6])
        kind = _VERSION << 4 | self.packing.number
        fields = (_MAGIC, kind, height, width, self.packet_bytes, sent.step, weights)
        crc = zlib.crc32(_HEADER.pack(*fields, 0)[:-4])
        for packet in sent.packets:
            crc = zlib.crc32(packet.data, crc)
        header = _HEADER.pack(*fields, crc)
        return Stream(Session(self.name, height, width, header), sent.packets)

    def _check_step(self, step: int) -> None:
        if step >= max(1, len(self.steps)):
            raise DataError(
                f"the .sqg stream is damaged: these weights have no quantiser step {step}"
            )

    def _check_weights(self, named: bytes) -> None:
        own = self.weights_sha256[:6]
        if named.hex() != own:
            raise WeightsError(
                f"the stream was made with weights {named.hex()}..., these are {own}...: "
                "give the weights it was made with"
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
) -> SQGANCodec:
    """The codec `sqgan` with shipped or own weights; the options are `SQGANCodec`'s.

    Raises WeightsError where the weights are missing, damaged or do not fit the model they name.
    """
    from sqlink.model.sqgan import load_model

    loaded = load(weights, "sqgan")
    model = load_model(loaded, str(weights))
    tables = Tables.from_tensors(loaded.tensors)
    if (tables.map.size, tables.image.size) != (model.config.map_codes, model.config.image_codes):
        raise WeightsError(f"weights '{weights}' have tables of another size than their codebooks")
    steps = model.refinement.config.steps if model.refinement is not None else ()
    if split is None:
        text = loaded.metadata.get("rate_path")
        try:
            split = (
                None
                if text is None
                else _stored_split(json.loads(text), tables.streams, len(steps))
            )
        except (ConfigError, ValueError) as error:
            raise WeightsError(f"weights '{weights}' have a wrong rate_path: {error}") from None
    return SQGANCodec(
        model.to(device),
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
        device=device,
        trained_on=[name for name in loaded.metadata.get("trained_on", "").split(",") if name],
        classes=class_set_of_size(model.config.num_classes),
        steps=steps,
    )


def _key(picture: Tensor, segmentation: Tensor | None) -> bytes:
    """What a picture [3, H, W], with its map uint8 [H, W] where it was given, is remembered by."""
    digest = hashlib.blake2b(repr(tuple(picture.shape)).encode())
    for part in (picture, segmentation):
        digest.update(b"" if part is None else part.contiguous().numpy().data)
    return digest.digest()


def _whole(which: NDArray[np.int64], chunk: int) -> NDArray[np.int64]:
    """`which` made up to a whole chunk with its last."""
    return np.pad(which, (0, chunk - which.size), mode="edge")


def _packing(kind: int) -> Packing:
    """How a session's packets were made. Raises DataError for another version of the format."""
    version = kind >> 4 or kind
    if version != _VERSION:
        raise DataError(f"a .sqg stream of version {version}: this SQLink reads {_VERSION}")
    return Packing.of(kind & 15)


def _checked_layers(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes in bytes, rising. Raises ConfigError if they are none."""
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
    """What became of the refinements in each place of the base's grid, int64 [h, w].

    whole, there: digits of each layer that were sent and that came, [k h, k w, D], -1 elsewhere. A
    place has lost something where any of its tokens is lost.
    """
    rows, columns = grid
    sent, lost = np.zeros(grid, dtype=bool), np.zeros(grid, dtype=bool)
    for all_, came in zip(whole, there, strict=True):
        cells = (rows, all_.shape[0] // rows, columns, all_.shape[1] // columns)
        was_sent = (all_[..., 0] >= 0).reshape(cells)
        sent |= was_sent.any(axis=(1, 3))
        lost |= (was_sent & (came[..., 0] < 0).reshape(cells)).any(axis=(1, 3))
    return np.where(lost, LOST, np.where(sent, CAME, NOT_SENT))


def _checked_split(split: Split, streams: int = 2, steps: int = 0) -> tuple[tuple[float, ...], ...]:
    """Fractions of every stream, rising, and, with refinements, the quantiser's step, of so many.

    Raises ConfigError if they are none.
    """
    try:
        points = tuple(tuple(float(share) for share in point) for point in split)
    except (TypeError, ValueError):
        points = ()
    width = streams + (streams > 2)
    if (
        len(points) < 2
        or any(len(point) != width for point in points)
        or not all(0 <= v <= 1 for point in points for v in point[:streams])
        or not all(min(point[:2]) > 0 for point in points)
    ):
        kinds = "pairs (map, image)" if streams == 2 else "rows (map, image, 1/8, 1/4, step)"
        raise ConfigError(f"split must be two or more {kinds} of fractions above 0, up to 1")
    if streams > 2 and any(point[-1] not in range(steps) for point in points):
        raise ConfigError(f"split's steps must be whole numbers from 0 to {steps - 1}")
    together = False
    for p, q in pairwise(points):
        same = p[streams:] == q[streams:]
        together |= same
        rising = all(a <= b for a, b in zip(p, q, strict=True))
        if not (rising if same else p[streams:] < q[streams:] and p[:2] <= q[:2]):
            raise ConfigError(
                "split's fractions must rise from row to row of a step, and its steps"
            )
    if not together:
        raise ConfigError("split must have two rows of one step")
    return points


def _stored_split(split: Any, streams: int, steps: int) -> dict[str, tuple[tuple[float, ...], ...]]:
    """The path that weights bring, for every aim. Raises ConfigError if it is none."""
    by_aim = split if isinstance(split, dict) else dict.fromkeys(AIMS, split)
    missing = [aim for aim in AIMS if aim not in by_aim]
    if missing:
        raise ConfigError(f"no path for aim '{missing[0]}'")
    return {aim: _checked_split(by_aim[aim], streams, steps) for aim in AIMS}


def _relevance(record: str | None) -> tuple[float, ...]:
    """How much each class matters by the task that weights were trained for."""
    if record is None:
        return ()
    from sqlink.training.task import Task

    return Task.from_json(record).image_weights
