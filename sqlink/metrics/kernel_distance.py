"""Kernel distance between the received pictures and the originals, on feature vectors.

    KD = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), k(a, b) = (a · b / d + 1)³; pairs of one
    set without a vector and itself, so that the estimate has no bias; lower is better

    kid         one vector per picture from FID's Inception network: the KID
    kid_patch   the same over patches of the pictures
    kd          cells of EfficientNet-Lite1 (ImageNet), which no loss uses

Unlike the Fréchet distance it is unbiased for few vectors. The estimate can be below 0, as it is
for equal sets. With several realisations it is the mean over them.

Source: Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018, section 4 and
eq. 4; all vectors in one estimate, where others average over subsets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sqlink.metrics.base import Extractor, register
from sqlink.metrics.features import EfficientNetCells, Patches
from sqlink.metrics.frechet import PATCH
from sqlink.metrics.inception import InceptionFeatures
from sqlink.metrics.jackknife import Floats, Integers, Jackknife


class KernelDistance:
    """A `SetMetric`: the squared maximum mean discrepancy under the cubic kernel."""

    unit = ""
    higher_is_better = False
    lowest = -math.inf

    def __init__(self, name: str, extractor: Extractor) -> None:
        self.name = name
        self.extractor = extractor

    def distance(self, received: Sequence[Floats], reference: Floats, block: Integers) -> Jackknife:
        found = np.mean([_each(one, reference, block) for one in received], axis=0)
        return Jackknife(float(found[0]), found[1:])


def _each(ours: Floats, theirs: Floats, block: Integers) -> Floats:
    """Return [1 + G]: the estimate, then that without each block. NaN below two vectors."""
    count = int(block.max()) + 1
    member = (block[:, None] == np.arange(count)).astype(np.float64)  # [n, G]
    sizes = member.sum(axis=0)
    left = len(block) - np.concatenate(([0.0], sizes))
    total = np.zeros(1 + count)
    for a, b, factor in ((ours, ours, 1), (theirs, theirs, 1), (ours, theirs, -2)):
        kernel = (a @ b.T / a.shape[1] + 1) ** 3
        same = factor == 1
        if same:
            np.fill_diagonal(kernel, 0.0)
        sums = member.T @ kernel @ member  # between blocks, [G, G]
        kept = sums.sum() - sums.sum(axis=0) - sums.sum(axis=1) + sums.diagonal()
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = left * (left - 1) if same else left**2
            total += factor * np.concatenate(([sums.sum()], kept)) / pairs
    return np.where(left > 1, total, np.nan)


@register("kid")
def kid(weights: Path | str | None = None) -> KernelDistance:
    """Make KID. weights: the Inception file; see `inception.InceptionFeatures`."""
    return KernelDistance("kid", InceptionFeatures(weights))


@register("kid_patch")
def kid_patch(weights: Path | str | None = None, patch: int = PATCH) -> KernelDistance:
    """Make KID over patches of `patch` pixels a side. weights: see
    `inception.InceptionFeatures`.
    """
    return KernelDistance("kid_patch", Patches(InceptionFeatures(weights), patch))


@register("kd")
def kd(weights: Path | str | None = None) -> KernelDistance:
    """Make KD on EfficientNet-Lite1's features. weights: see `features.EfficientNetCells`."""
    return KernelDistance("kd", EfficientNetCells(weights))
