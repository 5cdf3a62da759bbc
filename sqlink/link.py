"""One link from end to end: pictures in, pictures out.

    images ─ Transmitter ─> Streams ─ crossing.cross ─> Received ─ distinct ─ Receiver ─> LinkResult

`sqlink.crossing` holds what happens between the two ends; sweeps use it, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from channels.base import Channel
from sqlink.codecs.base import Decoded, Rate, Stream, Unreachable
from sqlink.crossing import (
    Draw,
    check_packet_size,
    cross,
    decode_received,
    distinct,
    join,
    ledger,
    pack,
    packet_size,
    resolve_rate,
    send,
    unpack,
)
from sqlink.errors import ConfigError
from sqlink.receiver import Receiver
from sqlink.transmitter import Transmitter

__all__ = [
    "Link",
    "LinkResult",
    "distinct",
    "join",
    "ledger",
    "pack",
    "resolve_rate",
    "unpack",
]


@dataclass(frozen=True)
class LinkResult:
    """N pictures, each over R realisations of the channel.

    names: N names. sent: N answers of the codec. decoded: the U distinct decoded pictures.
    understood: int64 [U, H, W], the evaluator's maps of them, or None. which: int64 [N, R], the
    decoded picture of each crossing. delivered, correct: bool [N, R, P]. channel_uses: int64 [N,
    R]. delay_s: float64 [N, R, P]. ledger: name -> int64 [N, R], bits of what was sent. statistics:
    name -> [N, R]. sent_bytes, delivered_bytes: int64 [N, R], with the session; the `size` of a
    stream is the number of bytes offered.

    A picture that the codec cannot code within the rate (Unreachable) counts as an outage, and
    nothing is sent.
    """

    names: tuple[str, ...]
    sent: tuple[Stream | Unreachable, ...]
    decoded: Decoded
    understood: Tensor | None
    which: Tensor
    delivered: Tensor
    correct: Tensor
    channel_uses: Tensor
    delay_s: Tensor
    ledger: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]
    sent_bytes: Tensor
    delivered_bytes: Tensor

    @property
    def outage(self) -> Tensor:
        """bool [N, R]: whether nothing could be decoded."""
        return self.decoded.outage[self.which]

    @property
    def unreachable(self) -> Tensor:
        """bool [N]: whether the codec cannot code the picture within the rate."""
        return torch.tensor([isinstance(answer, Unreachable) for answer in self.sent])

    def image(self, picture: int, realisation: int = 0) -> Tensor:
        """Return the picture received, float32 [3, H, W]."""
        return self.decoded.images[self.which[picture, realisation]]

    def segmentation(self, picture: int, realisation: int = 0) -> Tensor | None:
        """Return the map received, int64 [H, W]; None if the codec carries none."""
        if self.decoded.segmentation is None:
            return None
        return self.decoded.segmentation[self.which[picture, realisation]]

    def understanding(self, picture: int, realisation: int = 0) -> Tensor | None:
        """Return the evaluator's map of the picture received, int64 [H, W]; None without an
        evaluator.
        """
        if self.understood is None:
            return None
        return self.understood[self.which[picture, realisation]]


class Link:
    """Transmitter -> channel -> receiver.

    packet_bytes: packet size for a codec that has none, and for a rate in channel uses. device:
    where the channel is computed. Raises ConfigError if the packet sizes of codec, channel and
    `packet_bytes` differ.
    """

    def __init__(
        self,
        transmitter: Transmitter,
        channel: Channel,
        receiver: Receiver,
        packet_bytes: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.transmitter = transmitter
        self.channel = channel
        self.receiver = receiver
        self.packet_bytes = packet_size(transmitter.codec, packet_bytes)
        check_packet_size(channel, self.packet_bytes)
        self.device = torch.device(device)

    def run(
        self,
        images: Tensor,
        rate: Rate,
        conditions: Mapping[str, float | Tensor] | None = None,
        seed: int = 0,
        realisations: int = 1,
        names: Sequence[str] | None = None,
        segmentation: Tensor | None = None,
        point: str | None = None,
    ) -> LinkResult:
        """Send N pictures of one size, each over `realisations` independent draws of the channel.

        images: float32 [N, 3, H, W] in [0, 1]. conditions: name -> number, or one per picture, [N].
        names: of the pictures (by default their numbers). Names, `point` (by default the channel's
        name), seed and realisation key the random numbers, so that the result of a picture does not
        depend on the others. By default neither conditions nor the codec are in the key, so curves
        over SNR and different codecs meet the same noise. segmentation: int64 [N, H, W], a map to
        send instead of the transmitter's. Raises SQLinkError (ConfigError, ChannelError, DataError)
        if the parts do not fit.
        """
        count, _, height, width = images.shape
        labels = tuple(names) if names is not None else tuple(str(n) for n in range(count))
        if len(labels) != count or len(set(labels)) != count:
            raise ConfigError(f"{count} pictures need {count} different names, got {list(labels)}")
        if realisations < 1:
            raise ConfigError(f"realisations={realisations} must be at least 1")
        sent = tuple(
            send(self.transmitter, images, rate, self.channel, self.packet_bytes, segmentation)
        )
        crossed = cross(
            self.channel,
            sent,
            [Draw(n, labels[n], r, seed) for n in range(count) for r in range(realisations)],
            self._spread(conditions or {}, count, realisations),
            point=point or self.channel.name,
            packet_bytes=self.packet_bytes,
            device=self.device,
        )
        unique, numbers = distinct(crossed.received)
        decoded = decode_received(self.receiver, unique, height, width)
        understood = None
        if self.receiver.evaluator is not None:
            understood = self.receiver.understand(decoded.images)

        def by_picture(values: Tensor) -> Tensor:
            return values.reshape(count, realisations, *values.shape[1:])

        return LinkResult(
            names=labels,
            sent=sent,
            decoded=decoded,
            understood=understood,
            which=by_picture(torch.tensor(numbers, dtype=torch.int64)),
            delivered=by_picture(crossed.delivered),
            correct=by_picture(crossed.correct),
            channel_uses=by_picture(crossed.channel_uses),
            delay_s=by_picture(crossed.delay_s),
            ledger={name: by_picture(bits) for name, bits in crossed.ledger.items()},
            statistics={name: by_picture(value) for name, value in crossed.statistics.items()},
            sent_bytes=by_picture(crossed.sent_bytes),
            delivered_bytes=by_picture(crossed.delivered_bytes),
        )

    def _spread(
        self, conditions: Mapping[str, float | Tensor], count: int, realisations: int
    ) -> dict[str, Tensor]:
        """Repeat each picture's conditions for its crossings, [N * R]."""
        spread = {}
        for name, value in conditions.items():
            row = torch.as_tensor(value, dtype=torch.float64).to(self.device)
            if row.ndim > 1 or (row.ndim == 1 and len(row) != count):
                raise ConfigError(
                    f"condition '{name}' must be a number or one a picture [{count}], "
                    f"not {list(row.shape)}"
                )
            spread[name] = row.expand(count).repeat_interleave(realisations)
        return spread
