"""The protocol of codecs: pictures to packets within a budget, and received packets to pictures.

    images [N,3,H,W] ── encode(rate) ──> Stream | Unreachable, one per picture
    Received (session + packets, None if lost) ── decode ──> Decoded

The size of a Stream counts existing bytes: a stored file is the session header followed by the
packets, and `bpp = 8 * size / (H * W)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from channels.registry import Registry
from sqlink.codecs import BUILT_IN
from sqlink.errors import ConfigError

if TYPE_CHECKING:
    # PyTorch is not imported at run time, as it would slow the start of decoding workers.
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

DEFAULT_PACKET_BYTES = 96
MAX_PACKET_BYTES = 65535
OUTAGE_COLOUR = (0.412, 0.425, 0.427)
"""Mean RGB colour of CamVid `fit`, shown if a picture cannot be decoded."""


def outage_images(count: int, height: int, width: int) -> Tensor:
    """Make the images shown for pictures that cannot be decoded, float32 [count, 3, H, W].

    >>> outage_images(1, 16, 16).mean((0, 2, 3))
    tensor([0.4120, 0.4250, 0.4270])
    """
    import torch

    return torch.tensor(OUTAGE_COLOUR).view(1, 3, 1, 1).repeat(count, 1, height, width)


_MOST = 1e12
"""Largest rate of any kind, within the range of integers and floats."""


@dataclass(frozen=True)
class Rate:
    """A budget for one picture: exactly one of bits per pixel, bytes, channel uses, native quality.

    >>> Rate(bpp=0.04).budget_bytes(360, 480)
    864
    """

    bpp: float | None = None
    bytes: int | None = None
    channel_uses: int | None = None
    quality: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in self.__dict__.items() if v is not None}
        if len(given) != 1:
            raise ConfigError(
                f"a rate is exactly one of bpp, bytes, channel_uses, quality; got {given or 'none'}"
            )
        key, value = next(iter(given.items()))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise ConfigError(f"rate {key}={value!r} is not a number")
        if key != "quality" and value <= 0:
            raise ConfigError(f"rate {key}={value!r} must be above 0")
        if abs(value) > _MOST:
            raise ConfigError(f"rate {key}={value!r} must be at most {_MOST:g}")

    def budget_bytes(self, height: int, width: int) -> int | None:
        """Return the number of bytes that a picture may take; None for a native quality.

        Raises ConfigError for channel uses: only a `Link` knows what a channel use carries, and
        converts the rate before a codec gets it.
        """
        if self.channel_uses is not None:
            raise ConfigError("a rate in channel_uses needs a channel: use it in a Link or a sweep")
        if self.bytes is not None:
            return int(self.bytes)
        if self.bpp is not None:
            return int(self.bpp * height * width / 8 + 1e-9)
        return None

    @property
    def kind(self) -> str:
        """The kind of the rate, one of four."""
        return next(name for name, value in self.__dict__.items() if value is not None)

    @property
    def value(self) -> float:
        return float(self.__dict__[self.kind])

    def label(self) -> str:
        """Return a short text for file names, legends and point hashes, such as `bpp=0.04`.

        Different rates have different labels.
        """
        return f"{self.kind}={self.value!r}".removesuffix(".0")


@dataclass(frozen=True)
class Packet:
    """One packet of a stream.

    priority: 0 is the most relevant. bits: the ledger, name -> bits, whose sum is 8 * len(data);
    names are `index`, `mask`, `header`, `coder` (remainder of the entropy coder), `padding`, and
    `payload` for a stream that the codec does not divide further.
    """

    data: bytes
    priority: int
    bits: Mapping[str, int]

    def __post_init__(self) -> None:
        if sum(self.bits.values()) != 8 * len(self.data):
            raise ValueError(f"ledger {dict(self.bits)} is not the {8 * len(self.data)} bits sent")


@dataclass(frozen=True)
class Session:
    """The data that both ends know before the first packet, charged once.

    header: the bytes before the packets in a stored file (magic, size, weights hash, ...); empty if
    the first packet holds this information (JPEG2000, BPG).
    """

    codec: str
    height: int
    width: int
    header: bytes = b""


@dataclass(frozen=True)
class Stream:
    """One encoded picture: a session and its packets, most relevant first.

    setting: the native quality that was chosen to fit the budget, such as a QP, where the codec has
    one.
    """

    session: Session
    packets: tuple[Packet, ...]
    setting: float | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """Bytes of the stored file."""
        return len(self.session.header) + sum(len(p.data) for p in self.packets)

    @property
    def bpp(self) -> float:
        return 8 * self.size / (self.session.height * self.session.width)

    @property
    def ledger(self) -> dict[str, int]:
        """Bits by kind; their sum is 8 * size."""
        total = {"session": 8 * len(self.session.header)}
        for packet in self.packets:
            for name, bits in packet.bits.items():
                total[name] = total.get(name, 0) + bits
        return total

    def to_bytes(self) -> bytes:
        """Return the stored file's bytes."""
        return self.session.header + b"".join(p.data for p in self.packets)


@dataclass(frozen=True)
class Unreachable:
    """A codec's answer if it cannot code a picture within the budget.

    In a sweep it is counted as `unreachable`, and the picture stays in the average.
    """

    codec: str
    height: int
    width: int
    budget_bytes: int
    lowest_bytes: int

    @property
    def lowest_bpp(self) -> float:
        return 8 * self.lowest_bytes / (self.height * self.width)

    def __str__(self) -> str:
        return (
            f"{self.codec} cannot code {self.width}x{self.height} in {self.budget_bytes} bytes: "
            f"its lowest is {self.lowest_bytes} bytes ({self.lowest_bpp:.4f} bpp)"
        )


@dataclass(frozen=True)
class Received:
    """One stream as the receiver has it: the session, and each packet's bytes or None if lost.

    packets: in sending order. `sqlink.crossing.unpack` makes one `Received` for each stream from a
    `channels.base.Reception`, which is a channel's report on a batch of links.
    """

    session: Session
    packets: tuple[bytes | None, ...]

    @classmethod
    def whole(cls, stream: Stream) -> Received:
        """Return a stream as received without loss."""
        return cls(stream.session, tuple(p.data for p in stream.packets))


@dataclass(frozen=True)
class Decoded:
    """Decoded pictures of one size.

    images: float32 [N, 3, H, W] in [0, 1]. segmentation: int64 [N, H, W] or None if the codec
    carries no map. outage: bool [N], True where nothing could be decoded and OUTAGE_COLOUR
    is shown.
    """

    images: Tensor
    segmentation: Tensor | None
    outage: Tensor


@runtime_checkable
class Codec(Protocol):
    """Protocol of codecs, pictures to streams and back: the same for SQ-GAN and every baseline.

    Optional protocols: `WithSession`, `Trained`, `Described` and `TokenFate` here, `WithClasses`
    (`sqlink.data.classes`) and `FromWeights` (`sqlink.weights`).
    """

    name: str
    suffix: str
    """Suffix of a stored file, with the dot."""
    carries_map: bool
    """Whether the stream carries a segmentation map, which `decode` then returns."""

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode images: float32 [N, 3, H, W] in [0, 1]; segmentation: int64 [N, H, W] or None.

        Returns one answer per picture, with at most the budget's bytes. Codecs that carry no map
        ignore `segmentation`.
        """
        ...

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode pictures of one size from the received packets; wrong bytes never raise an
        error.
        """
        ...

    def parse(self, data: bytes) -> Stream:
        """Parse a stored file into its stream. Raises DataError if it is cut short or damaged."""
        ...


@runtime_checkable
class WithSuffix(Protocol):
    """A codec class that names the suffix of its stored files, with the dot."""

    suffix: str


@runtime_checkable
class WithLosslessOptions(Protocol):
    """A codec class that names its best options for a channel that neither loses nor cuts
    packets.
    """

    lossless_options: Mapping[str, object]


@runtime_checkable
class WithSession(Protocol):
    """A codec whose sessions have a header. session_bytes: its length.

    A rate in channel uses pays for packets only: these bytes are added when it is converted.
    """

    session_bytes: int


def session_bytes(codec: object) -> int:
    """Return the bytes of a codec's session header: 0 if its sessions have none."""
    return codec.session_bytes if isinstance(codec, WithSession) else 0


@runtime_checkable
class Trained(Protocol):
    """A codec with trained weights. trained_on: names of metrics that were training losses."""

    trained_on: Sequence[str]


def trained_on(codec: object) -> tuple[str, ...]:
    """Return the metrics that were training losses of a codec; they are marked wherever shown."""
    return tuple(codec.trained_on) if isinstance(codec, Trained) else ()


@runtime_checkable
class Described(Protocol):
    """A codec that records what is needed to reproduce its files."""

    def describe(self) -> Mapping[str, str]:
        """Return the versions of its libraries and its parameters, for a sweep's manifest."""
        ...


NOT_SENT, LOST, CAME = 0, 128, 255
"""Values for the fate of a token."""


@runtime_checkable
class TokenFate(Protocol):
    """A codec with a grid of tokens that reports the fate of each token."""

    def token_fate(
        self, image: Tensor, segmentation: Tensor | None, sent: Stream, came: Received
    ) -> NDArray[np.uint8]:
        """Return relevance and fate of the token in every place, uint8 [h, w, 3] or [h, w, 4].

        image: float32 [3, H, W], segmentation: int64 [H, W] or None, as they were encoded. The
        channels are: the relevance of the image token, 0 to 255; the fate of the image token; the
        fate of the map token; and, if the codec has a refinement, the fate of the refinement of
        this place. A fate is NOT_SENT, LOST or CAME.
        """
        ...


CODECS: Registry[Codec] = Registry(
    "codec", "sqlink.codecs", {name: module for name, (module, _) in BUILT_IN.items()}
)
register = CODECS.register
