"""SQ-GAN as a codec: tokens of the picture and of its map, within a budget of true bytes.

    images, map ─ model.analyse ─ indices and scores of every place
                    └─ keep the (m_map, m_image) most relevant ─ packetise ─ Stream
    packets that came ─ unpacketise ─ indices, -1 where masked or lost ─ model.synthesise ─ Decoded

A stored `.sqg` is an 18-byte session and then the packets, all of `packet_bytes` but the last:

    offset 0   "SQG"            3 bytes
           3   version, packing 1, four bits each: 2, and how tokens became packets
           4   height, width    2 + 2, big-endian
           8   packet_bytes     2
          10   weights          4, the first bytes of their file's SHA-256
          14   CRC-32           4, of all the other bytes of the file

A budget is filled along a path of (m_map, m_image), the kept fractions of the two streams, which
the weights bring or the user gives: the farthest point of it whose bytes, packets made, fit, or one
that fills 99 % of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from channels.config.checks import choice, flag, integer
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
from sqlink.bitstream.tables import Tables
from sqlink.bitstream.token_selection import keep, layers, ranks
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    MAX_PACKET_BYTES,
    OUTAGE_COLOUR,
    Decoded,
    Packet,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    register,
)
from sqlink.data.classes import CAMVID, NO_LABEL, ClassSet, class_set_of_size, listed
from sqlink.data.pictures import check_size
from sqlink.errors import ConfigError, DataError, WeightsError
from sqlink.runtime.precision import full_precision
from sqlink.runtime.threads import side_by_side
from sqlink.segmentation import check_segmenter
from sqlink.weights.manifest import Loaded, load

if TYPE_CHECKING:
    from sqlink.model.sqgan import SQGAN, Analysis
    from sqlink.segmentation.base import Segmenter

DEFAULT_SPLIT = ((0.03, 0.012), (0.25, 0.12), (0.35, 0.35), (0.45, 0.70), (1.0, 1.0))
"""Path of kept fractions (map, image) where the weights bring none."""

_HEADER = struct.Struct(">3sBHHH4sI")
SESSION_BYTES = _HEADER.size
_MAGIC = b"SQG"
_VERSION = 2
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

Split = Sequence[tuple[float, float]]


class TokenModel(Protocol):
    """The two halves of a network; see `sqlink.model.sqgan.SQGAN`."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens."""
        ...

    def analyse(self, images: Tensor, segmentation: Tensor) -> Analysis:
        """Indices and scores of every place."""
        ...

    def synthesise(
        self, image_indices: Tensor, map_indices: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Pictures and maps from indices, -1 where masked."""
        ...


@dataclass(frozen=True)
class _Analysed:
    """One picture's tokens: indices and ranks of every place, int64 [h, w] each. sizes: bytes of
    the points of the path that were tried, by the points below them that end layers.
    """

    map_indices: NDArray[np.int64]
    image_indices: NDArray[np.int64]
    map_ranks: NDArray[np.int64]
    image_ranks: NDArray[np.int64]
    sizes: dict[tuple[int, ...], dict[int, int]]


class SQGANCodec:
    """The codec around a model and its tables; `load_codec("sqgan")` makes one from weights.

    weights_sha256: hex, what a stored file names its weights by. segmenter: what makes the map
    where `encode` gets none, or its name. split: the path of (m_map, m_image), both rising.
    image_layers: layers of relevance of the image's tokens (1..4): more than one brings the most
    relevant first, at more bytes. layer_bytes: up to three sizes of packets, in bytes, rising, for
    streams within a budget: the first so many bytes of the packets are then what a budget of so
    many, and the session's, would buy of the map and of the picture, or a little less; sizes beyond
    the budget are passed over. `independent` packets
    say the mask anew in each layer, a `single` stream says nothing twice. packing: `independent`
    packets, `map-dependent` ones or a `single` stream; see `sqlink.bitstream.packets`.
    fixed_length: indices of log2 of the codebook's size bits each, an ablation. chunk: pictures
    that the network takes at once, always, so that a picture's result does not depend on the
    others; None: 2 on a CPU, up to 16 on CUDA, fewer of large ones. trained_on: metrics that were
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
        split: Split = DEFAULT_SPLIT,
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
        self.split = _checked_split(split)
        self.packing = Packing(packing, fixed_length)
        self.device = torch.device(device)
        self.chunk = chunk
        self.trained_on = tuple(trained_on)
        self._remembered: OrderedDict[bytes, _Analysed] = OrderedDict()
        self._usual: dict[int, NDArray[np.float64]] = {}

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1] with int64 [N, H, W] maps, or the segmenter's.

        A native `quality` in (0, 1] is the fraction of tokens kept in both streams. Unreachable
        below the bytes of the path's first point. Raises ConfigError for a quality out of range and
        for channel uses, DataError for a picture too small or too large and for a map of another
        size or with ids that are no class.
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
                f"sqgan quality={quality:g} is the fraction of tokens kept: above 0, up to 1"
            )

        def answer(analysed: _Analysed) -> Stream | Unreachable:
            if budget is not None:
                return self._fit(analysed, height, width, budget)
            assert quality is not None
            count = max(1, round(quality * analysed.map_ranks.size))
            return self._stream(self._packets(analysed, [(count, count)]), height, width)

        return self._analysed(images, segmentation, answer)

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
        images = torch.tensor(OUTAGE_COLOUR).view(1, 3, 1, 1).repeat(count, 1, height, width)
        maps = torch.full((count, height, width), NO_LABEL, dtype=torch.int64)
        outage = torch.ones(count, dtype=torch.bool)
        chunk = self._chunk(height, width)

        def decode(start: int) -> None:
            part = received[start : start + chunk]
            tokens = np.stack([self._tokens_of(one, height, width) for one in part], axis=1)
            there = np.flatnonzero((tokens >= 0).any(axis=(0, 2, 3)))
            if not there.size:
                return
            batch = torch.from_numpy(tokens[:, _whole(there, chunk)]).to(self.device)
            with torch.inference_mode():
                pictures, labels = self.model.synthesise(batch[1], batch[0], height, width)
                # A receiver shows 8 bits a channel, as the other codecs' decoders do.
                shown = (pictures[: there.size].float() * 255).round().cpu() / 255
                images[start + there] = shown
                maps[start + there] = labels[: there.size].cpu()
                outage[start + there] = False

        side_by_side(decode, range(0, count, chunk), self.device)
        return Decoded(images, maps, outage)

    def _tokens_of(self, one: Received, height: int, width: int) -> NDArray[np.int64]:
        """Indices of map and image, int64 [2, h, w], -1 where nothing came."""
        header, packing = one.session.header, self.packing
        if len(header) == _HEADER.size and header[:3] == _MAGIC:
            _, kind, _, _, _, weights, _ = _HEADER.unpack(header)
            packing = _packing(kind)
            self._check_weights(weights)
        rows, columns = self.model.grid(height, width)
        return np.stack(unpacketise(one.packets, rows, columns, self.tables, packing))

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
        if len(body) > 2 * rows * columns * packet_bytes:
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
            parts = [
                part.cpu().numpy()
                for part in (
                    analysis.map_indices,
                    analysis.image_indices,
                    analysis.map_scores,
                    analysis.image_scores,
                )
            ]
            found = [
                _Analysed(parts[0][i], parts[1][i], ranks(parts[2][i]), ranks(parts[3][i]), {})
                for i in range(which.size)
            ]
            return [(keys[n], one, answer(one)) for n, one in zip(which, found, strict=True)]

        done: dict[bytes, Stream | Unreachable] = {}
        for part in side_by_side(encode, range(0, missing.size, chunk), self.device):
            for key, analysed, made in part:
                known[key], done[key] = analysed, made
        self._remembered.update(known)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return [done[key] if key in done else answer(known[key]) for key in keys]

    def _chunk(self, height: int, width: int) -> int:
        """Pictures of a size that the network takes at once."""
        if self.chunk is not None:
            return self.chunk
        most, pixels = (2, 2 << 20) if self.device.type == "cpu" else (16, 4 << 20)
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
        usual = self._usual_sizes(analysed.map_ranks.size)
        streams: dict[int, list[Packet]] = {}

        def size(step: int) -> int:
            if step not in sizes:
                streams[step] = self._packets_at(analysed, step, below)
                sizes[step] = SESSION_BYTES + sum(len(p.data) for p in streams[step])
            return sizes[step]

        low, high, tries = -1, _STEPS + 1, 0  # fits; does not
        goal = budget - _AIM * (1 - _FILLED) * budget
        guess = int(np.searchsorted(usual, goal, side="right")) - 1
        before = step = 0
        while high - low > 1 and (low < 0 or sizes[low] < _FILLED * budget - 1):
            tries += 1
            if tries > 4 and tries % 2:  # should guesses creep
                guess = (low + high) // 2
            before, step = step, min(max(guess, low + 1), high - 1)
            if size(step) <= budget:
                low = step
            else:
                high = step
                # All may take fewer bytes than nearly all, which needs a mask.
                if step > 0.8 * _STEPS and size(_STEPS) <= budget:
                    low = _STEPS
                    break
            slope = sizes[step] / usual[step]
            if before and usual[before] != usual[step]:
                rise = (sizes[step] - sizes[before]) / (usual[step] - usual[before])
                slope = min(max(rise, slope / 2), 2 * slope)
            wanted = usual[step] + (goal - sizes[step]) / slope
            guess = int(np.searchsorted(usual, wanted, side="right")) - 1
            if high > _STEPS and guess > 0.9 * _STEPS:
                guess = _STEPS
        if low < 0 or (low < _STEPS // 64 and size(0) > budget):
            return None, []
        return low, streams[low] if low in streams else self._packets_at(analysed, low, below)

    def _usual_sizes(self, places: int) -> NDArray[np.float64]:
        """About how many bytes each point of the path takes, rising; [_STEPS + 1]."""
        if places not in self._usual:
            kept = np.stack(self._counts(np.arange(_STEPS + 1), places), axis=1)
            self._usual[places] = SESSION_BYTES + 8 + kept @ np.array(_USUAL_BITS) / 8
        return self._usual[places]

    def _packets_at(
        self, analysed: _Analysed, step: int, below: tuple[int, ...] = ()
    ) -> list[Packet]:
        """The packets of a point of the path, with layers that end at those below it."""
        steps = np.array([*(one for one in below if one < step), step])
        of_map, of_image = self._counts(steps, analysed.map_ranks.size)
        return self._packets(analysed, list(zip(of_map.tolist(), of_image.tolist(), strict=True)))

    def _counts(
        self, steps: NDArray[np.int64], places: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of map and image at points of the path, each of 0.._STEPS."""
        at = steps / _STEPS * (len(self.split) - 1)
        knots = np.arange(len(self.split))
        of_map, of_image = (
            np.interp(at, knots, [point[stream] for point in self.split]) for stream in range(2)
        )
        return _tokens(of_map, places), _tokens(of_image, places)

    def _packets(self, analysed: _Analysed, counts: Sequence[tuple[int, int]]) -> list[Packet]:
        """counts: tokens of map and image with which each layer ends, rising."""
        map_ends, image_ends = (np.array(ends) for ends in zip(*counts, strict=True))
        tokens = Tokens(
            keep(analysed.map_indices, analysed.map_ranks, map_ends[-1]),
            keep(analysed.image_indices, analysed.image_ranks, image_ends[-1]),
            np.searchsorted(map_ends[:-1], analysed.map_ranks, side="right"),
            layers(analysed.image_ranks, image_ends[-1], self.image_layers)
            if self.image_layers > 1
            else np.searchsorted(image_ends[:-1], analysed.image_ranks, side="right"),
        )
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
    split: Split | None = None,
    image_layers: int = 1,
    layer_bytes: Sequence[int] = (),
    packing: str = MODES[0],
    fixed_length: bool = False,
) -> SQGANCodec:
    """The codec `sqgan` with shipped or own weights; the options are `SQGANCodec`'s.

    Raises WeightsError where the weights are missing, damaged or do not fit the model they name.
    """
    loaded = load(weights, "sqgan")
    model = load_model(loaded, str(weights))
    tables = Tables.from_tensors(loaded.tensors)
    if (tables.map.size, tables.image.size) != (model.config.map_codes, model.config.image_codes):
        raise WeightsError(f"weights '{weights}' have tables of another size than their codebooks")
    if split is None:
        text = loaded.metadata.get("rate_path")
        try:
            split = DEFAULT_SPLIT if text is None else _checked_split(json.loads(text))
        except (ConfigError, ValueError) as error:
            raise WeightsError(f"weights '{weights}' have a wrong rate_path: {error}") from None
    return SQGANCodec(
        model.to(device),
        tables,
        loaded.sha256,
        packet_bytes=packet_bytes,
        segmenter=segmenter,
        split=split,
        image_layers=image_layers,
        layer_bytes=layer_bytes,
        packing=packing,
        fixed_length=fixed_length,
        device=device,
        trained_on=[name for name in loaded.metadata.get("trained_on", "").split(",") if name],
        classes=class_set_of_size(model.config.num_classes),
    )


def load_model(loaded: Loaded, title: str) -> SQGAN:
    """The networks in a weights file, for use. Raises WeightsError if they are not what it says."""
    from sqlink.model.config import ModelConfig
    from sqlink.model.layout import channels_last
    from sqlink.model.sqgan import SQGAN

    try:
        model = SQGAN(ModelConfig.from_json(loaded.metadata["model"]))
        state = {k: v for k, v in loaded.tensors.items() if not k.startswith("tables.")}
        model.load_weights(state)
    except (ConfigError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"weights '{title}' do not fit the model they name: {reason}") from None
    return channels_last(model.eval().requires_grad_(False))


def _key(picture: Tensor, segmentation: Tensor | None) -> bytes:
    """What a picture [3, H, W], with its map uint8 [H, W] where it was given, is remembered by."""
    digest = hashlib.blake2b(repr(tuple(picture.shape)).encode())
    for part in (picture, segmentation):
        digest.update(b"" if part is None else part.contiguous().numpy().data)
    return digest.digest()


def _whole(which: NDArray[np.int64], chunk: int) -> NDArray[np.int64]:
    """`which` made up to a whole chunk with its last."""
    return np.pad(which, (0, chunk - which.size), mode="edge")


def _tokens(fractions: NDArray[np.float64], places: int) -> NDArray[np.int64]:
    """That share of the places, at least one."""
    return np.maximum(1, np.rint(fractions * places)).astype(np.int64)


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


def _checked_split(split: Split) -> tuple[tuple[float, float], ...]:
    """Pairs of fractions, rising. Raises ConfigError if they are none."""
    try:
        points = tuple((float(map_share), float(image_share)) for map_share, image_share in split)
    except (TypeError, ValueError):
        points = ()
    if len(points) < 2 or not all(0 < v <= 1 and math.isfinite(v) for p in points for v in p):
        raise ConfigError(
            "split must be two or more pairs (map, image) of fractions above 0, up to 1"
        )
    if any(q[0] < p[0] or q[1] < p[1] for p, q in pairwise(points)):
        raise ConfigError("split's fractions must rise from pair to pair")
    return points
