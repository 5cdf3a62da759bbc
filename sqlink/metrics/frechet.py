"""Fréchet distance between the received pictures and the originals, on feature vectors.

    FD = |m - m'|² + tr(S + S' - 2 (S S')^(1/2)), means and covariances of two sets of vectors;
    0 for equal sets, lower is better

    fid         one vector per picture from FID's Inception network: the FID
    fid_patch   the same over patches of the pictures
    fd          cells of EfficientNet-Lite1 (ImageNet), which no loss uses
    fd_judge    cells of the judge's features; to be read together with another

The distance measures whether the received pictures, as a set, have the statistics of the originals:
blur, blocks and hatching raise it, a wrong but plausible detail does not. It is biased for small
sets. Three rules limit the bias: both sets consist of the same pictures, so that unchanged pictures
give 0; compare distances at equal n only; and intervals leave out whole blocks of pictures. Each
network has its own scale, and only `fid` may be called FID.

Sources: Fréchet, 1957; Dowson, Landau, "The Fréchet distance between multivariate normal
distributions", 1982; Heusel et al., "GANs trained by a two time-scale update rule converge to a
local Nash equilibrium", NeurIPS 2017 (FID).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sqlink.metrics.base import Extractor, register
from sqlink.metrics.features import EfficientNetCells, JudgeCells, Patches
from sqlink.metrics.inception import InceptionFeatures
from sqlink.metrics.jackknife import Floats, Integers, Jackknife, by_leaving_out
from sqlink.segmentation.base import Segmenter

PATCH = 256
"""Side of a patch in pixels, as is usual for compressed pictures."""


class FrechetDistance:
    """A `SetMetric`: the Fréchet distance on an extractor's vectors."""

    unit = ""
    higher_is_better = False
    lowest = 0.0

    def __init__(self, name: str, extractor: Extractor) -> None:
        self.name = name
        self.extractor = extractor

    def distance(self, received: Sequence[Floats], reference: Floats, block: Integers) -> Jackknife:
        if len(received) * len(reference) <= reference.shape[1]:
            return by_leaving_out(of_vectors, received, reference, block)
        groups = [np.flatnonzero(block == g) for g in range(int(block.max()) + 1)]
        ours = np.stack([moments(np.concatenate([r[g] for r in received])) for g in groups])
        theirs = np.stack([moments(reference[g]) for g in groups]) * len(received)
        every = ours.sum(axis=0), theirs.sum(axis=0)
        without = [frechet(every[0] - a, every[1] - b) for a, b in zip(ours, theirs, strict=True)]
        return Jackknife(float(frechet(*every)), np.asarray(without, dtype=np.float64))


def moments(vectors: npt.ArrayLike) -> Floats:
    """Convert vectors [..., n, d] to sums that add up over sets: [..., 1 + d + d (d + 1) / 2].

    The sums are n, the sum of vectors, and the upper triangle of the sum of outer products.
    """
    array = np.asarray(vectors, dtype=np.float64)
    n, d = array.shape[-2:]
    outer = np.swapaxes(array, -1, -2) @ array
    rows, columns = np.triu_indices(d)
    count = np.full((*array.shape[:-2], 1), n, dtype=np.float64)
    return np.concatenate((count, array.sum(axis=-2), outer[..., rows, columns]), axis=-1)


def frechet(ours: Floats, theirs: Floats) -> Floats:
    """Return the distance, [...], between sets given by their `moments`, [..., k] each.

    NaN where a set has fewer than two vectors.
    """
    (mean_a, a), (mean_b, b) = _gaussian(ours), _gaussian(theirs)
    root = _root(b)  # b = root root^T; a b has the eigenvalues of root^T a root
    crossed = np.linalg.eigvalsh(np.swapaxes(root, -1, -2) @ a @ root)
    trace = np.trace(a, axis1=-2, axis2=-1) + np.trace(b, axis1=-2, axis2=-1)
    shared = np.sqrt(crossed.clip(min=0)).sum(axis=-1)
    distance = ((mean_a - mean_b) ** 2).sum(axis=-1) + trace - 2 * shared
    enough = (ours[..., 0] > 1) & (theirs[..., 0] > 1)
    return np.asarray(np.where(enough, distance.clip(min=0), np.nan), dtype=np.float64)


def of_vectors(ours: Floats, theirs: Floats) -> float:
    """Return the distance between sets of no more vectors than dimensions, [n, d] and [m, d].

    tr (S S')^(1/2) is then the sum of the singular values of the n x m matrix of inner products.
    NaN where a set has fewer than two vectors.
    """
    if min(len(ours), len(theirs)) < 2:
        return float("nan")
    mean_a, mean_b = ours.mean(axis=0), theirs.mean(axis=0)
    a = (ours - mean_a) / np.sqrt(len(ours) - 1)
    b = (theirs - mean_b) / np.sqrt(len(theirs) - 1)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared
    return float(max(distance, 0.0))


def _root(covariance: Floats) -> Floats:
    """Return a matrix whose product with its transpose is the covariance, [..., d, d]."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    except np.linalg.LinAlgError:  # no more vectors than dimensions, or a constant feature
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(values.clip(min=0))[..., None, :], dtype=np.float64)


def _gaussian(sums: Floats) -> tuple[Floats, Floats]:
    """Return the mean [..., d] and the unbiased covariance [..., d, d]."""
    d = round((np.sqrt(8 * sums.shape[-1] + 1) - 3) / 2)
    n = sums[..., :1]
    mean = sums[..., 1 : 1 + d] / n.clip(min=1)
    rows, columns = np.triu_indices(d)
    flat = (sums[..., 1 + d :] - n * mean[..., rows] * mean[..., columns]) / (n - 1).clip(min=1)
    covariance = np.empty((*sums.shape[:-1], d, d))
    covariance[..., rows, columns] = flat
    covariance[..., columns, rows] = flat
    return mean, covariance


@register("fid")
def fid(weights: Path | str | None = None) -> FrechetDistance:
    """Make FID. weights: the Inception file; see `inception.InceptionFeatures`."""
    return FrechetDistance("fid", InceptionFeatures(weights))


@register("fid_patch")
def fid_patch(weights: Path | str | None = None, patch: int = PATCH) -> FrechetDistance:
    """Make FID over patches of `patch` pixels a side. weights: see
    `inception.InceptionFeatures`.
    """
    return FrechetDistance("fid_patch", Patches(InceptionFeatures(weights), patch))


@register("fd_judge")
def fd_judge(judge: Segmenter) -> FrechetDistance:
    """Make FD on the judge's features. judge: the judge of the sweep."""
    return FrechetDistance("fd_judge", JudgeCells(judge))


@register("fd")
def fd(weights: Path | str | None = None) -> FrechetDistance:
    """Make FD on EfficientNet-Lite1's features. weights: see `features.EfficientNetCells`."""
    return FrechetDistance("fd", EfficientNetCells(weights))
