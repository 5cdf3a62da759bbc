"""The pictures of a sweep, in batches that are coded together, with what is known of each.

data set ── batches ──> Picture, its key ── prepared ──> with the map to send, the judge's ceiling
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from experiments.sweep.components import Components
from experiments.sweep.examples import Examples
from experiments.sweep.grid import digest
from experiments.sweep.measuring import Original
from experiments.sweep.schema import Sweep
from sqlink.data.base import Sample
from sqlink.errors import DataError
from sqlink.segmentation.ground_truth import fill_unlabelled


@dataclass(frozen=True)
class Picture:
    """A picture and what is known of it before anything is sent.

    key: 16 hexadecimal digits, a hash of its name, pixels and labels and, in a sequence, of those
    of its run. sent: int64 [H, W], the map given to the codec, or None. original: measurements of
    the original. block: its run of neighbours, which intervals count as one sample.
    """

    number: int
    key: str
    sample: Sample
    block: str
    sent: Tensor | None = None
    original: Original = field(default_factory=Original)


class Pictures:
    """The pictures of a sweep, or of one shard of it: the `shard[0]`-th of `shard[1]` equal parts.

    examples: where kept originals are written, or None.
    """

    def __init__(
        self,
        sweep: Sweep,
        components: Components,
        shard: tuple[int, int] = (1, 1),
        examples: Examples | None = None,
    ) -> None:
        self._sweep = sweep
        self._components = components
        self._shard = shard
        self._examples = examples

    @property
    def count(self) -> int:
        """Pictures of the sweep, or of this shard of it."""
        length = 1 if self._sweep.sequence is None else self._sweep.sequence.length
        return sum(min(length, self._all - start) for start in self._starts)

    @property
    def _all(self) -> int:
        return min(len(self._components.data), self._sweep.data.limit or len(self._components.data))

    @property
    def _starts(self) -> range:
        """Numbers of this shard's pictures; of runs, the number of the first picture of each."""
        part, parts = self._shard
        length = 1 if self._sweep.sequence is None else self._sweep.sequence.length
        return range((part - 1) * length, self._all, parts * length)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Numbers of the pictures, in groups: the pictures of a sequence that share a link, or
        single ones.
        """
        length = 1 if self._sweep.sequence is None else self._sweep.sequence.length
        return [tuple(range(start, min(start + length, self._all))) for start in self._starts]

    def batches(self, numbers: Sequence[int]) -> Iterator[list[Picture]]:
        """Load the pictures of these numbers in batches of equal picture size.

        A batch has at most `batch_size` pictures; in a sequence it is the whole run that shares a
        link.
        """
        if self._sweep.sequence is not None:
            yield self._run_of(numbers)
            return
        batch: list[Picture] = []
        for number in numbers:
            sample = self._components.data[number]
            picture = Picture(number, picture_key(sample), sample, sample.block)
            full = len(batch) == self._sweep.batch_size
            if batch and (full or batch[0].sample.image.shape != sample.image.shape):
                yield batch
                batch = []
            batch.append(picture)
        if batch:
            yield batch

    def _run_of(self, numbers: Sequence[int]) -> list[Picture]:
        """Make a run of pictures that share a link: the key of each depends on the others."""
        samples = [self._components.data[number] for number in numbers]
        for sample in samples:
            if sample.image.shape != samples[0].image.shape:
                raise DataError(
                    f"picture '{sample.name}' is of another size than '{samples[0].name}': "
                    "the pictures of a sequence must be of one size"
                )
        keys = [picture_key(sample) for sample in samples]
        together = digest(keys)
        return [
            Picture(number, digest([together, key]), sample, f"sequence {samples[0].name}")
            for number, key, sample in zip(numbers, keys, samples, strict=True)
        ]

    def prepared(self, batch: Sequence[Picture]) -> list[Picture]:
        """Return the pictures with the map to send and the judge's map of the original."""
        components = self._components
        images = torch.stack([picture.sample.image for picture in batch]).to(components.device)
        if components.segmenter is not None:
            maps = components.segmenter.segment(images).cpu()
            batch = [replace(p, sent=m) for p, m in zip(batch, maps, strict=True)]
        elif components.sends_map:
            for picture in batch:
                if picture.sample.segmentation is None:
                    raise DataError(
                        f"picture '{picture.sample.name}' has no labels to send: "
                        "use `segmenter: tx`, or give the data set maps"
                    )
            labels = [p.sample.segmentation for p in batch if p.sample.segmentation is not None]
            maps = fill_unlabelled(torch.stack(labels))
            batch = [replace(p, sent=m) for p, m in zip(batch, maps, strict=True)]
        originals = components.measures.originals(images, [p.sample.segmentation for p in batch])
        return [replace(p, original=o) for p, o in zip(batch, originals, strict=True)]

    def keep(self, batch: Sequence[Picture]) -> None:
        """Write the originals of those that are examples."""
        for picture in batch:
            if self._examples is not None and picture.number < self._sweep.examples.pictures:
                sample = picture.sample
                self._examples.keep_original(
                    sample.name,
                    sample.image,
                    sample.segmentation,
                    picture.original.seen,
                )


def picture_key(sample: Sample) -> str:
    """Hash a picture's name, pixels and labels: 16 hexadecimal digits."""
    total = hashlib.sha256(f"{sample.name} {tuple(sample.image.shape)}\n".encode())
    total.update(sample.image.contiguous().numpy().tobytes())
    if sample.segmentation is not None:
        total.update(sample.segmentation.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
