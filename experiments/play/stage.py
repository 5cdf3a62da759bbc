"""One picture and a link whose settings change: what is sent and received; results are cached.

    Setting ── encode (remembered) ── channel ── decode (remembered) ── judge ──> Scene

The channel is packet loss and then a coded link, drawn from measured block error rates (`lookup`),
which takes milliseconds. A draw of the channel is keyed by its number alone: moving a slider keeps
the fades and the noise, and codecs side by side meet the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import interpolate

from channels.base import Channel
from channels.config import build
from channels.random import Streams
from experiments.report.embedded import data_uri, webp
from experiments.report.labels import LEDGER, codec_title
from experiments.report.page import token_layers
from sqlink.codecs import load_codec
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    Codec,
    Decoded,
    Rate,
    Received,
    Stream,
    TokenFate,
    Unreachable,
)
from sqlink.codecs.sqgan.codec import SQGANCodec
from sqlink.crossing import ledger, pack, unpack
from sqlink.data.classes import CAMVID
from sqlink.metrics.psnr import psnr
from sqlink.metrics.semantic import confusion, miou
from sqlink.receiver import outage
from sqlink.segmentation import load_segmenter

CODECS = ("sqgan", "jpeg2000", "bpg")
PROTECTION = (
    ("16qam", 0.75),
    ("16qam", 0.5),
    ("qpsk", 0.75),
    ("qpsk", 0.5),
    ("qpsk", 0.25),
)
"""Modulation and code rate, the most fragile first; their tables come with the package."""
OVER = {"awgn": "awgn", "rayleigh": {"rayleigh": {"coherence": "packet"}}}
REMEMBERED = 96
"""Encodings, and decodings, that are kept."""
MOST_PIXELS = 480 * 360
"""Larger pictures are made smaller, so that a move stays within a second."""

Found = TypeVar("Found")


class Setting(BaseModel):
    """Where the sliders are. protection: a place in PROTECTION. draw: number of the realisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: Literal["sqgan", "jpeg2000", "bpg"] = "sqgan"
    bpp: Annotated[float, Field(ge=0.002, le=2)] = 0.04
    snr_db: Annotated[float, Field(ge=-10, le=40)] = 12
    loss: Annotated[float, Field(ge=0, le=1)] = 0
    protection: Annotated[int, Field(ge=0, lt=len(PROTECTION))] = 3
    fading: Literal["awgn", "rayleigh"] = "rayleigh"
    draw: Annotated[int, Field(ge=0, lt=2**31)] = 0
    realism: Annotated[float, Field(ge=0, le=1)] | None = None


@dataclass(frozen=True)
class Seen:
    """What came out of one decoding: data URIs, and numbers against the original."""

    image: str
    map: str | None
    seen: str
    psnr_db: float | None
    miou: float
    outage: bool


class Stage:
    """A picture, and the parts that send it. `send` may be called from several threads."""

    def __init__(self, image: Tensor, name: str, labels: Tensor | None = None) -> None:
        """Set up a picture. image: float32 [3, H, W] in [0, 1]. labels: int64 [H, W], or None
        without any.
        """
        self._lock = threading.Lock()
        self._codecs: dict[str, Codec] = {}
        self._channels: dict[tuple[int, str], Channel] = {}
        self._judge = load_segmenter("judge")
        self._transmitter = load_segmenter("tx")
        self.show(image, name, labels)

    def show(self, image: Tensor, name: str, labels: Tensor | None = None) -> None:
        """Take another picture; the cache of the one before is dropped."""
        image, labels = _fitted(image, labels)
        with self._lock, torch.inference_mode():
            self.image, self.name = image, name
            self.clean = self._judge.segment(image[None])[0]
            self.labels = self.clean if labels is None else labels
            self.labelled = labels is not None
            self.sent = self._transmitter.segment(image[None])
            self._streams: OrderedDict[Any, Stream | Unreachable] = OrderedDict()
            self._decoded: OrderedDict[Any, Seen] = OrderedDict()

    def about(self) -> dict[str, Any]:
        """Return what a page needs to know before the first move."""
        height, width = self.image.shape[1:]
        ceiling = _miou(self.clean, self.labels) if self.labelled else 1.0
        return {
            "name": self.name,
            "width": width,
            "height": height,
            "original": _picture(self.image),
            "labels": _map(self.labels),
            "labelled": self.labelled,
            "seen": _map(self.clean),
            "ceiling": ceiling,
            "codecs": [{"id": name, "title": codec_title(name)} for name in CODECS],
            "protection": [
                f"{modulation.upper().replace('QAM', '-QAM')} {_fraction(rate)}"
                for modulation, rate in PROTECTION
            ],
            "realism": self._realism(),
            "ledger": [{"id": k, "title": title} for k, (title, _) in LEDGER.items()],
            "classes": [
                {"name": name, "colour": f"#{bytes(colour).hex()}"}
                for name, colour in zip(CAMVID.names, CAMVID.palette, strict=True)
            ],
        }

    def send(self, setting: Setting) -> dict[str, Any]:
        """Send the picture once, and return all that a page shows of it.

        Raises SQLinkError if a codec cannot be had.
        """
        with self._lock, torch.inference_mode():
            codec = self._codec(setting.codec, setting.realism)
            answer = _remembered(
                self._streams, (setting.codec, setting.bpp), lambda: self._encode(setting)
            )
            if isinstance(answer, Unreachable):
                seen = self._look(setting, codec, None)
                return {
                    **vars(seen),
                    "unreachable": answer.lowest_bpp,
                    "bytes": 0,
                    "bpp": 0,
                    "packets": 0,
                    "delivered": 0,
                    "uses": 0,
                    "bits": {},
                    "tokens": None,
                }
            channel = self._channel(setting)
            conditions = {
                "snr_db": torch.tensor([setting.snr_db], dtype=torch.float64),
                "loss": torch.tensor([setting.loss], dtype=torch.float64),
            }
            reception = channel.transmit(
                pack([answer], DEFAULT_PACKET_BYTES, torch.device("cpu")),
                conditions,
                Streams.derive(setting.draw, [("play", setting.draw)]),
            )
            (came,) = unpack([answer], reception)
            seen = self._look(setting, codec, came)
            bits = {name: int(value[0]) for name, value in ledger([answer], reception).items()}
            return {
                **vars(seen),
                "unreachable": None,
                "bytes": answer.size,
                "bpp": answer.bpp,
                "packets": len(answer.packets),
                "delivered": sum(piece is not None for piece in came.packets),
                "lost": [n for n, piece in enumerate(came.packets) if piece is None],
                "uses": int(reception.channel_uses[0]),
                "bits": {name: value for name, value in bits.items() if value},
                "tokens": self._tokens(codec, answer, came),
            }

    def warm(self) -> None:
        """Start every codec, so that the first move to one does not wait for it."""
        for name in CODECS:
            self.send(Setting.model_validate({"codec": name}))

    def _encode(self, setting: Setting) -> Stream | Unreachable:
        codec = self._codec(setting.codec, None)
        (answer,) = codec.encode(self.image[None], Rate(bpp=setting.bpp), self.sent)
        return answer

    def _look(self, setting: Setting, codec: Codec, came: Received | None) -> Seen:
        key = (setting.codec, setting.realism, came)
        return _remembered(self._decoded, key, lambda: self._seen(codec, came))

    def _seen(self, codec: Codec, came: Received | None) -> Seen:
        height, width = self.image.shape[1:]
        decoded: Decoded = outage(1, height, width) if came is None else codec.decode([came])
        found = self._judge.segment(decoded.images)[0]
        carried = decoded.segmentation
        lost = bool(decoded.outage[0])
        return Seen(
            image=_picture(decoded.images[0]),
            map=None if carried is None or lost else _map(carried[0]),
            seen=_map(found),
            psnr_db=float(psnr(decoded.images, self.image[None])[0]),
            miou=_miou(found, self.labels),
            outage=lost,
        )

    def _tokens(self, codec: Codec, sent: Stream, came: Received) -> dict[str, Any] | None:
        if not isinstance(codec, TokenFate):
            return None
        return token_layers(codec.token_fate(self.image, self.sent[0], sent, came))

    def _codec(self, name: str, realism: float | None) -> Codec:
        """Return a codec, at a realism if it has one."""
        if name not in self._codecs:
            self._codecs[name] = load_codec(name)
        codec = self._codecs[name]
        if isinstance(codec, SQGANCodec):
            codec.chunk = 1  # one picture at a time: no network runs on what fills a chunk
        if isinstance(codec, SQGANCodec) and codec.tables.refinements:
            codec.realism = 1.0 if realism is None else realism
        return codec

    def _realism(self) -> list[str]:
        """List the codecs whose weights have a realism to choose."""
        codec = self._codec("sqgan", None)
        return ["sqgan"] if isinstance(codec, SQGANCodec) and codec.tables.refinements else []

    def _channel(self, setting: Setting) -> Channel:
        key = (setting.protection, setting.fading)
        if key not in self._channels:
            modulation, rate = PROTECTION[setting.protection]
            coded = {"over": OVER[setting.fading], "modulation": modulation, "code_rate": rate}
            self._channels[key] = build(["iid", {"lookup": coded}])
        return self._channels[key]


def street(seed: int) -> tuple[Tensor, str, Tensor]:
    """Render a street of 480x360; returns it with its name and its labels."""
    from sqlink.data.streets import Streets

    sample = Streets(seed=seed, count=1, height=360, width=480)[0]
    assert sample.segmentation is not None
    return sample.image, f"street {seed}", sample.segmentation


def _remembered(store: OrderedDict[Any, Found], key: Any, make: Callable[[], Found]) -> Found:
    """Return what `make` makes, cached by key."""
    if key not in store:
        store[key] = make()
        if len(store) > REMEMBERED:
            store.popitem(last=False)
    store.move_to_end(key)
    return store[key]


def _fitted(image: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scale the picture and its labels to at most MOST_PIXELS, its proportions kept."""
    height, width = image.shape[1:]
    if height * width <= MOST_PIXELS:
        return image, labels
    scale = (MOST_PIXELS / (height * width)) ** 0.5
    size = (max(16, round(height * scale)), max(16, round(width * scale)))
    smaller = interpolate(image[None], size, mode="bilinear", antialias=True).clamp(0, 1)[0]
    if labels is not None:
        labels = interpolate(labels[None, None].double(), size, mode="nearest-exact")[0, 0].long()
    return smaller, labels


def _miou(found: Tensor, truth: Tensor) -> float:
    return float(miou(confusion(found[None], truth[None])[0]))


def _picture(image: Tensor) -> str:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return data_uri(webp(Image.fromarray(pixels), 88), "image/webp")


def _map(labels: Tensor) -> str:
    colours: np.ndarray[Any, np.dtype[np.uint8]] = CAMVID.colourise(labels.cpu().numpy())
    return data_uri(webp(Image.fromarray(colours), None), "image/webp")


def _fraction(value: float) -> str:
    numerator, denominator = value.as_integer_ratio()
    return f"{numerator}/{denominator}"
