"""SQ-GAN as a codec: tokens of the picture and of its map, within a budget of true bytes.

    images, map ─ model.analyse ─ indices and scores of every place, of every stream
                    └─ keep the most relevant of each ─ packetise ─ Stream
    packets that came ─ unpacketise ─ indices, -1 where masked or lost ─ model.synthesise ─ Decoded

The streams are the base's, of map and picture at 1/16, and, where the weights have them, the two of
the refinement, in units of 2x2 tokens (`sqlink.bitstream.refinement_table`).

A stored `.sqg` is an 18-byte session and then the packets, all of `packet_bytes` but the last:

    offset 0   "SQG"            3 bytes
           3   version, packing 1, four bits each: 3, and how tokens became packets
           4   height, width    2 + 2, big-endian
           8   packet_bytes     2
          10   weights          4, the first bytes of their file's SHA-256
          14   CRC-32           4, of all the other bytes of the file

A budget is filled along a path of kept fractions of the streams, (m_map, m_image) or (m_map,
m_image, m_8, m_4), which the weights bring, one for each aim, or the user gives: the farthest point
of it whose bytes, packets made, fit, or one that fills 99 % of it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
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
from sqlink.bitstream.refinement_table import RefinementTable, tokens_of, units_of
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
    from sqlink.model.sqgan import Analysis, Layer
    from sqlink.segmentation.base import Segmenter

DEFAULT_SPLIT = ((0.03, 0.012), (0.25, 0.12), (0.35, 0.35), (0.45, 0.70), (1.0, 1.0))
"""Path of kept fractions (map, image) where the weights bring none."""
REFINED_SPLIT = (
    (0.03, 0.012, 0.0, 0.0),
    (0.25, 0.12, 0.0, 0.0),
    (0.35, 0.35, 0.02, 0.0),
    (0.45, 0.70, 0.06, 0.0),
    (0.8, 0.9, 0.25, 0.0),
    (1.0, 1.0, 0.6, 0.03),
    (1.0, 1.0, 1.0, 0.2),
    (1.0, 1.0, 1.0, 1.0),
)
"""The same with refinements, (map, image, 1/8, 1/4), for every aim."""

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

_HEADER = struct.Struct(">3sBHHH4sI")
SESSION_BYTES = _HEADER.size
_MAGIC = b"SQG"
_VERSION = 3
_FILLED = 0.99
"""Share of a budget that is enough."""
_AIM = 0.5
"""How much of what may stay free a guess leaves free."""
_USUAL_BITS = (7.0, 8.7)
"""Of a token of the map and of the picture, all told: where the search for a budget begins."""
_STEPS = 4096
"""Points of the path that a budget is fitted to."""
_REMEMBERED = 256
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
        refinements: Sequence[Tensor] = (),
        realism: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Pictures and maps from indices, -1 where masked."""
        ...


@dataclass(frozen=True)
class _Analysed:
    """One picture's tokens: indices and ranks of every place of every stream, int64 [h, w] each,
    [2 h, 2 w] of the last. bits: float64 [P + 1] each, about what the first so many of a stream
    take. sizes: bytes of the points of the path that were tried, by the points below them that end
    layers.
    """

    indices: tuple[NDArray[np.int64], ...]
    ranks: tuple[NDArray[np.int64], ...]
    bits: tuple[NDArray[np.float64], ...]
    sizes: dict[tuple[int, ...], dict[int, int]]


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
        if split is None:
            split = REFINED_SPLIT if tables.refinements else DEFAULT_SPLIT
        given = split[aim] if isinstance(split, Mapping) else split
        self.split = _checked_split(given, tables.streams)
        self.relevance = torch.tensor([*(relevance or [1.0] * len(classes)), 0.0])
        self.packing = Packing(packing, fixed_length)
        self.device = torch.device(device)
        self.chunk = chunk
        self.trained_on = tuple(trained_on)
        self._remembered: OrderedDict[bytes, _Analysed] = OrderedDict()
        self._kept: dict[tuple[int, tuple[tuple[float, ...], ...]], list[NDArray[np.int64]]] = {}
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
            packets = self._packets_at(analysed, max(1, round(quality * _STEPS)))
            return self._stream(packets, height, width)

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
            there = np.array(
                [n for n, own in enumerate(tokens) if any((t >= 0).any() for t in own)]
            )
            if not there.size:
                return
            rows = _whole(there, chunk)
            batch = [
                torch.from_numpy(np.stack([tokens[n][stream] for n in rows])).to(self.device)
                for stream in range(self.tables.streams)
            ]
            with torch.inference_mode():
                pictures, labels = self.model.synthesise(
                    batch[1], batch[0], height, width, **self._refining(batch[2:])
                )
                # A receiver shows 8 bits a channel, as the other codecs' decoders do.
                shown = (pictures[: there.size].float() * 255).round().cpu() / 255
                images[start + there] = shown
                maps[start + there] = labels[: there.size].cpu()
                outage[start + there] = False

        side_by_side(decode, range(0, count, chunk), self.device)
        return Decoded(images, maps, outage)

    def _refining(self, refinements: Sequence[Tensor]) -> dict[str, Any]:
        """What a network with refinements is told beside the base's tokens."""
        if not self.tables.refinements:
            return {}
        return {"refinements": refinements, "realism": self.realism}

    def _read(self, one: Received, height: int, width: int) -> list[NDArray[np.int64]]:
        """Indices of every stream's tokens, -1 where nothing came: int64 [h, w] of map and image,
        [2 h, 2 w] and [4 h, 4 w] of the refinements; not to be written to.
        """
        header, packing = one.session.header, self.packing
        if len(header) == _HEADER.size and header[:3] == _MAGIC:
            _, kind, _, _, _, weights, _ = _HEADER.unpack(header)
            packing = _packing(kind)
            self._check_weights(weights)
        rows, columns = self.model.grid(height, width)
        found = unpacketise(one.packets, rows, columns, self.tables, packing)
        finer = zip(found[2:], self.tables.refinements, strict=True)
        return [*found[:2], *(tokens_of(units, table.codes) for units, table in finer)]

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
        of_image = found[0].ranks[1]
        relevance = 255 - np.floor(256 * of_image / of_image.size)
        whole = self._tokens_of(Received.whole(sent), height, width)
        there = self._tokens_of(came, height, width)
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
        _, kind, height, width, packet_bytes, weights, crc = _HEADER.unpack_from(data)
        packing = _packing(kind)
        header, body = data[: _HEADER.size], data[_HEADER.size :]
        if zlib.crc32(body, zlib.crc32(header[:-4])) != crc:
            raise DataError("the .sqg stream is cut short or damaged: its CRC-32 does not hold")
        self._check_weights(weights)
        check_size(height, width, "the .sqg stream's picture")
        if packet_bytes < MIN_PACKET_BYTES or not body:
            raise DataError("the .sqg stream is damaged: it has no packets")
        rows, columns = self.model.grid(height, width)
        if len(body) > 7 * rows * columns * packet_bytes:
            raise DataError("the .sqg stream is damaged: it has more packets than places")
        pieces = [body[n : n + packet_bytes] for n in range(0, len(body), packet_bytes)]
        packets = parse_packets(pieces, rows, columns, self.tables, packing)
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
            usual = [torch.full_like(analysis.map_scores, bits) for bits in _USUAL_BITS]
            parts = [
                [part.cpu().numpy() for part in stream]
                for stream in (
                    (analysis.map_indices, analysis.map_scores, usual[0]),
                    (analysis.image_indices, analysis.image_scores, usual[1]),
                    *map(self._units, analysis.refinements, self.tables.refinements),
                )
            ]
            found = [_analysed([[part[i] for part in s] for s in parts]) for i in range(which.size)]
            return [(keys[n], one, answer(one)) for n, one in zip(which, found, strict=True)]

        done: dict[bytes, Stream | Unreachable] = {}
        for part in side_by_side(encode, range(0, missing.size, chunk), self.device):
            for key, analysed, made in part:
                known[key], done[key] = analysed, made
        self._remembered.update(known)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return [done[key] if key in done else answer(known[key]) for key in keys]

    def _units(self, layer: Layer, table: RefinementTable) -> tuple[Tensor, Tensor, Tensor]:
        """Units of a layer, what they are worth to the aim, and about the bits that they take, [N,
        k h / 2, k w / 2] each.
        """
        tokens = layer.tokens.cpu().numpy()
        units = torch.from_numpy(np.stack([units_of(one, table.codes) for one in tokens]))
        gains = layer.gains
        if self.aim == "faithful":
            worth = gains[:, 0]
        elif self.aim == "natural":
            worth = gains[:, 1]
        else:
            relevance = self.relevance.to(gains.device).view(1, -1, 1, 1)
            matters = (layer.shares * relevance).sum(1)
            worth = _LEGIBLE[1] * matters * gains[:, 1] + _LEGIBLE[2] * gains[:, 2]
        bits = torch.from_numpy(table.usual_bits(units.numpy()) + _MASK_BITS)
        return units, F.avg_pool2d(worth.unsqueeze(1), 2).squeeze(1), bits

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
        below: tuple[int, ...] = ()
        for size in self.layer_bytes:
            if size + SESSION_BYTES < budget:
                step, _ = self._farthest(analysed, size + SESSION_BYTES, below)
                if step is not None and max((-1, *below)) < step < _STEPS:
                    below = (*below, step)
        step, packets = self._farthest(analysed, budget, below)
        if step is None:
            lowest = analysed.sizes[below][0]
            return Unreachable(self.name, height, width, budget, lowest)
        return self._stream(packets, height, width)

    def _farthest(
        self, analysed: _Analysed, budget: int, below: tuple[int, ...]
    ) -> tuple[int | None, list[Packet]]:
        """The farthest point of the path, and its packets, that fits the budget, or one that fills
        99 % of it; None where none does. below: points that are layers of their own.

        Bytes are nearly in proportion to what tokens usually take, so a few guesses do.
        """
        sizes = analysed.sizes.setdefault(below, {})
        usual = self._usual_sizes(analysed)
        streams: dict[int, list[Packet]] = {}

        def size(step: int) -> int:
            if step not in sizes:
                streams[step] = self._packets_at(analysed, step, below)
                sizes[step] = SESSION_BYTES + sum(len(p.data) for p in streams[step])
            return sizes[step]

        low, high, tries = -1, _STEPS + 1, 0  # fits; does not
        goal = budget - _AIM * (1 - _FILLED) * budget
        guess = int(np.searchsorted(usual, goal, side="right")) - 1
        tried: list[int] = []
        while high - low > 1 and (low < 0 or sizes[low] < _FILLED * budget - 1):
            tries += 1
            if tries > 5 and tries % 2:  # should guesses creep
                guess = (low + high) // 2
            step = min(max(guess, low + 1), high - 1)
            tried.append(step)
            if size(step) <= budget:
                low = step
            else:
                high = step
                # All may take fewer bytes than nearly all, which needs a mask.
                if step > 0.8 * _STEPS and size(_STEPS) <= budget:
                    low = _STEPS
                    break
            # On the line through the two nearest points that were tried, or through nothing.
            near = sorted(tried, key=lambda one: abs(sizes[one] - goal))[:2]
            slope = sizes[step] / usual[step]
            if len(near) > 1 and usual[near[0]] != usual[near[1]]:
                rise = (sizes[near[1]] - sizes[near[0]]) / (usual[near[1]] - usual[near[0]])
                slope = min(max(rise, slope / 4), 4 * slope)
            wanted = usual[near[0]] + (goal - sizes[near[0]]) / slope
            guess = int(np.searchsorted(usual, wanted, side="right")) - 1
            if high > _STEPS and guess > 0.9 * _STEPS:
                guess = _STEPS
        if low < 0 or (low < _STEPS // 64 and size(0) > budget):
            return None, []
        return low, streams[low] if low in streams else self._packets_at(analysed, low, below)

    def _usual_sizes(self, analysed: _Analysed) -> NDArray[np.float64]:
        """About how many bytes each point of the path takes, rising; [_STEPS + 1]."""
        key = analysed.ranks[0].size, self.split
        if key not in self._kept:
            self._kept[key] = self._counts(np.arange(_STEPS + 1), key[0])
        sums = [bits[kept] for bits, kept in zip(analysed.bits, self._kept[key], strict=True)]
        total: NDArray[np.float64] = np.sum(sums, axis=0)
        return SESSION_BYTES + 8 + total / 8

    def _packets_at(
        self, analysed: _Analysed, step: int, below: tuple[int, ...] = ()
    ) -> list[Packet]:
        """The packets of a point of the path, with layers that end at those below it."""
        steps = np.array([*(one for one in below if one < step), step])
        counts = self._counts(steps, analysed.ranks[0].size)
        return self._packets(analysed, [tuple(row) for row in np.stack(counts, 1).tolist()])

    def _counts(self, steps: NDArray[np.int64], places: int) -> list[NDArray[np.int64]]:
        """Tokens of map and image, and units of refinements, at points of the path, 0.._STEPS."""
        at = steps / _STEPS * (len(self.split) - 1)
        knots = np.arange(len(self.split))
        shares = [
            np.interp(at, knots, [point[stream] for point in self.split])
            for stream in range(self.tables.streams)
        ]
        sizes = (places, places, places, 4 * places)
        kept = [np.rint(share * size) for share, size in zip(shares, sizes, strict=False)]
        least = (1, 1, 0, 0)
        return [np.maximum(low, k).astype(np.int64) for low, k in zip(least, kept, strict=False)]

    def _packets(self, analysed: _Analysed, counts: Sequence[tuple[int, ...]]) -> list[Packet]:
        """counts: tokens or units of every stream with which each layer ends, rising."""
        kept, layer = [], []
        for stream, ends_ in enumerate(zip(*counts, strict=True)):
            ends = np.array(ends_)
            rank = analysed.ranks[stream]
            kept.append(keep(analysed.indices[stream], rank, ends[-1]))
            if stream > 0 and self.image_layers > 1:
                layer.append(layers(rank, ends[-1], self.image_layers))
            else:
                layer.append(np.searchsorted(ends[:-1], rank, side="right"))
        finer = tuple(zip(kept[2:], layer[2:], strict=True))
        tokens = Tokens(kept[0], kept[1], layer[0], layer[1], finer)
        return packetise(tokens, self.tables, self.packet_bytes, self.packing)

    def _stream(self, packets: list[Packet], height: int, width: int) -> Stream:
        weights = bytes.fromhex(self.weights_sha256[:8])
        kind = _VERSION << 4 | self.packing.number
        fields = (_MAGIC, kind, height, width, self.packet_bytes, weights)
        crc = zlib.crc32(_HEADER.pack(*fields, 0)[:-4])
        for packet in packets:
            crc = zlib.crc32(packet.data, crc)
        header = _HEADER.pack(*fields, crc)
        return Stream(Session(self.name, height, width, header), tuple(packets))

    def _check_weights(self, named: bytes) -> None:
        own = self.weights_sha256[:8]
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
    if split is None:
        text = loaded.metadata.get("rate_path")
        try:
            split = None if text is None else _stored_split(json.loads(text), tables.streams)
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
    )


def _analysed(streams: Sequence[Sequence[NDArray[Any]]]) -> _Analysed:
    """Of indices, scores and bits of every place of every stream of a picture."""
    rank = tuple(ranks(scores) for _, scores, _ in streams)
    bits = []
    for (_, _, each), own in zip(streams, rank, strict=True):
        ordered = np.zeros(own.size + 1)
        ordered[1 + own.reshape(-1)] = each.reshape(-1)
        bits.append(np.cumsum(ordered))
    return _Analysed(tuple(indices for indices, _, _ in streams), rank, tuple(bits), {})


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

    whole, there: tokens of each layer that were sent and that came, [k h, k w], -1 elsewhere. A
    place has lost something where any of its tokens is lost.
    """
    rows, columns = grid
    sent, lost = np.zeros(grid, dtype=bool), np.zeros(grid, dtype=bool)
    for all_, came in zip(whole, there, strict=True):
        cells = (rows, all_.shape[0] // rows, columns, all_.shape[1] // columns)
        was_sent = (all_ >= 0).reshape(cells)
        sent |= was_sent.any(axis=(1, 3))
        lost |= (was_sent & (came < 0).reshape(cells)).any(axis=(1, 3))
    return np.where(lost, LOST, np.where(sent, CAME, NOT_SENT))


def _checked_split(split: Split, streams: int = 2) -> tuple[tuple[float, ...], ...]:
    """Fractions of every stream, rising. Raises ConfigError if they are none."""
    try:
        points = tuple(tuple(float(share) for share in point) for point in split)
    except (TypeError, ValueError):
        points = ()
    if (
        len(points) < 2
        or any(len(point) != streams for point in points)
        or not all(0 <= v <= 1 for point in points for v in point)
        or not all(min(point[:2]) > 0 for point in points)
    ):
        kinds = "pairs (map, image)" if streams == 2 else "rows (map, image, 1/8, 1/4)"
        raise ConfigError(f"split must be two or more {kinds} of fractions above 0, up to 1")
    if any(b < a for p, q in pairwise(points) for a, b in zip(p, q, strict=True)):
        raise ConfigError("split's fractions must rise from row to row")
    return points


def _stored_split(split: Any, streams: int) -> dict[str, tuple[tuple[float, ...], ...]]:
    """The path that weights bring, for every aim. Raises ConfigError if it is none."""
    by_aim = split if isinstance(split, dict) else dict.fromkeys(AIMS, split)
    missing = [aim for aim in AIMS if aim not in by_aim]
    if missing:
        raise ConfigError(f"no path for aim '{missing[0]}'")
    return {aim: _checked_split(by_aim[aim], streams) for aim in AIMS}


def _relevance(record: str | None) -> tuple[float, ...]:
    """How much each class matters by the task that weights were trained for."""
    if record is None:
        return ()
    from sqlink.training.task import Task

    return Task.from_json(record).image_weights
