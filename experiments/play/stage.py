"""One picture and a link whose settings change: what is sent and received; results are cached.

    Setting ── encode (cached) ── channel ── decode (cached) ──> picture received
                                                     └── judge (cached) ──> its map and mIoU

The picture is returned first, because the judge takes as long as some codecs. The channel is packet
loss and then a coded link, drawn from measured block error rates (`lookup`), which takes
milliseconds. A draw of the channel is keyed by its number only: fades and noise stay the same when
a slider moves, and are the same for all codecs.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import interpolate

from channels.base import Channel, Reception
from channels.config import build
from channels.random import Randomness
from experiments.report.embedded import data_uri, token_layers, webp
from experiments.report.labels import LEDGER, codec_title
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
from sqlink.errors import SQLinkError
from sqlink.metrics.psnr import psnr
from sqlink.metrics.semantic import confusion, miou
from sqlink.receiver import outage
from sqlink.runtime.threads import all_threads
from sqlink.segmentation import load_segmenter
from sqlink.segmentation.base import Segmenter

CODECS = ("sqgan", "jpeg2000", "bpg")
RATES = (0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3)
"""Rates of the slider, in bits per pixel."""
IDLE_S = 0.7
"""Idle time in seconds after which the next rate is encoded in advance."""
PROTECTION = (
    ("16qam", 0.75),
    ("16qam", 0.5),
    ("qpsk", 0.75),
    ("qpsk", 0.5),
    ("qpsk", 0.25),
)
"""Modulations and code rates, the weakest protection first; their tables come with the package."""
OVER = {"awgn": "awgn", "rayleigh": {"rayleigh": {"coherence": "packet"}}}
REMEMBERED = 96
"""Number of encodings and of decodings in the cache."""
MOST_PIXELS = 480 * 360
"""Largest number of pixels; larger pictures are scaled down, so that an answer takes about a
second.
"""

Found = TypeVar("Found")


class Setting(BaseModel):
    """Positions of the sliders. protection: index in PROTECTION. draw: number of the
    realisation.
    """

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
class Arrival:
    """Result of one decoding: image float32 [3, H, W]; map int64 [H, W], or None."""

    image: Tensor
    map: Tensor | None
    outage: bool


class Stage:
    """A picture, and the components that send it. `send` may be called from several threads."""

    def __init__(self, image: Tensor, name: str, labels: Tensor | None = None) -> None:
        """Set up a picture. image: float32 [3, H, W] in [0, 1]. labels: int64 [H, W] or None."""
        self._lock = threading.Lock()
        self._asked = time.monotonic()
        self._codecs: dict[str, Codec] = {}
        self._channels: dict[tuple[int, str], Channel] = {}
        self._segmenters: dict[str, Segmenter] = {}
        self.show(image, name, labels)

    def show(self, image: Tensor, name: str, labels: Tensor | None = None) -> None:
        """Show another picture, and clear the cache."""
        image, labels = _fitted(image, labels)
        with self._lock:
            self.image, self.name = image, name
            self._given = labels
            self._maps: dict[str, Tensor] = {}
            self._streams: OrderedDict[Any, Stream | Unreachable] = OrderedDict()
            self._arrivals: OrderedDict[Any, Arrival] = OrderedDict()
            self._shown: OrderedDict[Any, dict[str, Any]] = OrderedDict()
            self._judged: OrderedDict[Any, dict[str, Any]] = OrderedDict()

    @property
    def labelled(self) -> bool:
        """Whether the picture came with labels."""
        return self._given is not None

    @property
    def clean(self) -> Tensor:
        """The judge's map of the original, int64 [H, W]."""
        return self._map_by("judge")

    @property
    def labels(self) -> Tensor:
        """The labels, or the judge's map of the original if there are none."""
        return self.clean if self._given is None else self._given

    def _map_by(self, segmenter: str) -> Tensor:
        """Return a segmenter's map of the original, computed once."""
        if segmenter not in self._maps:
            if segmenter not in self._segmenters:
                self._segmenters[segmenter] = load_segmenter(segmenter)
            self._maps[segmenter] = self._segmenters[segmenter].segment(self.image[None])[0]
        return self._maps[segmenter]

    def about(self) -> dict[str, Any]:
        """Return the data that a page needs at its start."""
        with self._lock, torch.inference_mode(), all_threads():
            return self._about()

    def _about(self) -> dict[str, Any]:
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
            "rates": RATES,
            "realism": self._realism(),
            "ledger": [{"id": k, "title": title} for k, (title, _) in LEDGER.items()],
            "classes": [
                {"name": name, "colour": f"#{bytes(colour).hex()}"}
                for name, colour in zip(CAMVID.names, CAMVID.palette, strict=True)
            ],
        }

    def send(self, setting: Setting) -> dict[str, Any]:
        """Send the picture once, and return the result without the judge's map (see `judge`).

        Raises SQLinkError if a codec is not available.
        """
        self._asked = time.monotonic()
        with self._lock, torch.inference_mode(), all_threads():
            answer, reception, came = self._sent(setting)
            key, arrival = self._arrival(setting.codec, setting.realism, came)
            shown = _remembered(self._shown, key, lambda: self._show(arrival))
            if reception is None or came is None or isinstance(answer, Unreachable):
                lowest = answer.lowest_bpp if isinstance(answer, Unreachable) else None
                nothing = dict.fromkeys(("bytes", "bpp", "packets", "delivered", "uses"), 0)
                return {**shown, **nothing, "unreachable": lowest, "bits": {}, "tokens": None}
            bits = {name: int(value[0]) for name, value in ledger([answer], reception).items()}
            return {
                **shown,
                "unreachable": None,
                "bytes": answer.size,
                "bpp": answer.bpp,
                "packets": len(answer.packets),
                "delivered": sum(piece is not None for piece in came.packets),
                "lost": [n for n, piece in enumerate(came.packets) if piece is None],
                "uses": int(reception.channel_uses[0]),
                "bits": {name: value for name, value in bits.items() if value},
                "tokens": self._tokens(setting.codec, answer, came),
            }

    def judge(self, setting: Setting) -> dict[str, Any]:
        """Return the judge's map of the picture that `send` returns, and its mIoU.

        Raises SQLinkError if a codec is not available.
        """
        self._asked = time.monotonic()
        with self._lock, torch.inference_mode(), all_threads():
            _, _, came = self._sent(setting)
            key, arrival = self._arrival(setting.codec, setting.realism, came)
            return _remembered(self._judged, key, lambda: self._judge(arrival))

    def warm(self) -> None:
        """Load the segmenters and all codecs, then encode the picture at all rates while idle.

        Moving the slider then needs no encoding. Returns early if another picture is shown.
        """
        self.about()
        streams, ready = self._streams, []
        for name in CODECS:
            setting = Setting.model_validate({"codec": name})
            with suppress(SQLinkError):  # a request for it reports the reason
                self.send(setting)
                self.judge(setting)
                ready.append(name)
        for bpp in sorted(RATES, key=lambda one: abs(math.log(one / Setting().bpp))):
            for name in ready:
                while time.monotonic() - self._asked < IDLE_S:
                    time.sleep(IDLE_S / 4)
                setting = Setting.model_validate({"codec": name, "bpp": bpp})
                with self._lock, torch.inference_mode(), all_threads():
                    if self._streams is not streams:
                        return
                    self._stream(setting)

    def _sent(
        self, setting: Setting
    ) -> tuple[Stream | Unreachable, Reception | None, Received | None]:
        """Return the stream and its crossing of the channel; None if the rate is unreachable."""
        answer = self._stream(setting)
        if isinstance(answer, Unreachable):
            return answer, None, None
        conditions = {
            "snr_db": torch.tensor([setting.snr_db], dtype=torch.float64),
            "loss": torch.tensor([setting.loss], dtype=torch.float64),
        }
        reception = self._channel(setting).transmit(
            pack([answer], DEFAULT_PACKET_BYTES, torch.device("cpu")),
            conditions,
            Randomness.derive(setting.draw, [("play", setting.draw)]),
        )
        (came,) = unpack([answer], reception)
        return answer, reception, came

    def _stream(self, setting: Setting) -> Stream | Unreachable:
        key = (setting.codec, setting.bpp)
        return _remembered(self._streams, key, lambda: self._encode(setting))

    def _encode(self, setting: Setting) -> Stream | Unreachable:
        codec = self._codec(setting.codec)
        carried = self._map_by("tx")[None]
        (answer,) = codec.encode(self.image[None], Rate(bpp=setting.bpp), carried)
        return answer

    def _arrival(
        self, name: str, realism: float | None, came: Received | None
    ) -> tuple[Any, Arrival]:
        """Return a codec's decoding of packets, and its key in the cache."""
        chosen = 1.0 if realism is None else realism
        key = (name, chosen, came)
        return key, _remembered(self._arrivals, key, lambda: self._decode(name, chosen, came))

    def _decode(self, name: str, realism: float, came: Received | None) -> Arrival:
        height, width = self.image.shape[1:]
        codec = self._codec(name)
        if isinstance(codec, SQGANCodec) and codec.tables.refinements:
            if 0 < realism < 1:
                return self._mixed(name, realism, came)
            codec.realism = realism
        decoded: Decoded = outage(1, height, width) if came is None else codec.decode([came])
        lost, carried = bool(decoded.outage[0]), decoded.segmentation
        return Arrival(decoded.images[0], None if carried is None or lost else carried[0], lost)

    def _mixed(self, name: str, realism: float, came: Received | None) -> Arrival:
        """Return the picture at a realism between 0 and 1, mixed from those at 0 and 1."""
        probable = self._arrival(name, 0.0, came)[1]
        natural = self._arrival(name, 1.0, came)[1]
        return replace(natural, image=torch.lerp(probable.image, natural.image, realism))

    def _show(self, arrival: Arrival) -> dict[str, Any]:
        return {
            "image": _picture(arrival.image),
            "map": None if arrival.map is None else _map(arrival.map),
            "psnr_db": float(psnr(arrival.image[None], self.image[None])[0]),
            "outage": arrival.outage,
        }

    def _judge(self, arrival: Arrival) -> dict[str, Any]:
        self._map_by("judge")
        found = self._segmenters["judge"].segment(arrival.image[None])[0]
        return {"seen": _map(found), "miou": _miou(found, self.labels)}

    def _tokens(self, name: str, sent: Stream, came: Received) -> dict[str, Any] | None:
        codec = self._codec(name)
        if not isinstance(codec, TokenFate):
            return None
        return token_layers(codec.token_fate(self.image, self._map_by("tx"), sent, came))

    def _codec(self, name: str) -> Codec:
        if name not in self._codecs:
            codec = self._codecs[name] = load_codec(name)
            if isinstance(codec, SQGANCodec):
                codec.chunk = 1  # one picture at a time: no computation for padding of a batch
        return self._codecs[name]

    def _realism(self) -> list[str]:
        """List the codecs whose weights support realism."""
        codec = self._codec("sqgan")
        return ["sqgan"] if isinstance(codec, SQGANCodec) and codec.tables.refinements else []

    def _channel(self, setting: Setting) -> Channel:
        key = (setting.protection, setting.fading)
        if key not in self._channels:
            modulation, rate = PROTECTION[setting.protection]
            coded = {"over": OVER[setting.fading], "modulation": modulation, "code_rate": rate}
            self._channels[key] = build(["iid", {"lookup": coded}])
        return self._channels[key]


def street(seed: int) -> tuple[Tensor, str, Tensor]:
    """Render a street of 480x360; return it with its name and its labels."""
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
