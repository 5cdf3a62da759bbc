"""Fréchet distance (FD) between pictures and their references, on the features of `judge`.

    pictures [N,3,H,W] ─ judge, up to 1/16 ─ features [N,128,h,w] ─ mean over cells of 64x64 pixels
    ─> vectors [N, cells, 128] ─ n, sum, sum of outer products ─> mean and covariance, both sets
    FD = |mean - mean'|^2 + tr(S + S' - 2 (S S')^(1/2)); 0 for equal sets, lower is better

FD asks whether received pictures, as a set, look to a network as pictures do: blur, blocks and
hatching move it, while a detail that is wrong but plausible does not. FID takes one vector a
picture from a network trained on ImageNet and wants tens of thousands of pictures. Here every cell
of a coarse grid is a vector: 48 a picture of 480x360, so the 47 of CamVid `dev` give 2256 of 128
values. What a small set costs is bias, and three things hold it: both sets are the same cells of
the same pictures, so that 0 is left where nothing is changed; distances are compared at one n
alone; and intervals draw whole blocks of pictures, as cells and frames beside each other are not
independent, and are moved back by the bias that drawing a block twice adds. Figures hold for one
judge: another one, or other weights of it, has another scale.

Sources: Fréchet, 1957; Dowson, Landau, "The Fréchet distance between multivariate normal
distributions", 1982; Heusel et al., "GANs trained by a two time-scale update rule converge to a
local Nash equilibrium", NeurIPS 2017 (FID); Nash et al., "Generating images with sparse
representations", ICML 2021 (features that keep their place, sFID).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.errors import ConfigError
from sqlink.segmentation.base import Segmenter

CELL = 64
"""Pixels a side of a cell."""
LAYER = "sixteenth"
"""Of the judge's network: the part whose output is taken."""
STEP = 16
"""Pixels from one vector of that output to the next."""
RESAMPLES = 400
"""Of a bootstrap: each needs the eigenvalues of two matrices."""

Floats = npt.NDArray[np.float64]


class Tap:
    """What the judge's network made of the pictures that it segmented while `tapped`."""

    def __init__(self) -> None:
        self._features: list[Tensor] = []

    def keep(self, features: Tensor) -> None:
        """features: [n, C, h, w], of a chunk of pictures."""
        self._features.append(features.detach().float().cpu())

    def cells(self, count: int, height: int, width: int) -> Tensor:
        """float32 [count, cells, C] of the first `count` pictures, of height x width pixels."""
        return pool(torch.cat(self._features)[:count], height, width)


def features(judge: Segmenter) -> nn.Module:
    """The part of the judge's network whose output is taken. Raises ConfigError if it has none."""
    network = getattr(judge, "network", None)
    layer = getattr(network, LAYER, None)
    if not isinstance(layer, nn.Module):
        raise ConfigError(
            f"the segmenter '{judge.name}' has no features for the Fréchet distance: "
            "use `judge: judge`, or leave `fd` out of the metrics"
        )
    return layer


@contextmanager
def tapped(judge: Segmenter) -> Iterator[Tap]:
    """Within the block, one call of `judge.segment` leaves its features behind.

    Raises ConfigError where the judge has no such features.
    """
    tap = Tap()
    hook = features(judge).register_forward_hook(lambda _module, _given, made: tap.keep(made))
    try:
        yield tap
    finally:
        hook.remove()


def pool(features: Tensor, height: int, width: int) -> Tensor:
    """Features of pictures padded to whole steps, [N, C, h, w], to means of cells, [N, cells, C].

    height, width: of the pictures themselves, in pixels; at least one cell a side. What stands for
    padding alone is left out.

    >>> pool(torch.ones(2, 5, 24, 30), 360, 480).shape
    torch.Size([2, 48, 5])
    """
    inside = features[:, :, : -(-height // STEP), : -(-width // STEP)]
    rows, columns = (max(1, (side + CELL // 2) // CELL) for side in (height, width))
    return F.adaptive_avg_pool2d(inside, (rows, columns)).flatten(2).transpose(1, 2).contiguous()


def moments(cells: npt.ArrayLike) -> Floats:
    """[..., n, d] vectors to what adds up over sets of them, [..., 1 + d + d (d + 1) / 2].

    n, the sum, and the upper triangle of the sum of outer products.
    """
    vectors = np.asarray(cells, dtype=np.float64)
    n, d = vectors.shape[-2:]
    outer = np.swapaxes(vectors, -1, -2) @ vectors
    rows, columns = np.triu_indices(d)
    count = np.full((*vectors.shape[:-2], 1), n, dtype=np.float64)
    return np.concatenate((count, vectors.sum(axis=-2), outer[..., rows, columns]), axis=-1)


def frechet(ours: Floats, theirs: Floats) -> Floats:
    """FD between sets given by their `moments`, [..., k] each; returns [...].

    NaN where a set has fewer than two vectors.
    """
    (mean_a, a), (mean_b, b) = _gaussian(ours), _gaussian(theirs)
    root = _root(b)  # b = root root^T, and a b has the eigenvalues of root^T a root
    crossed = np.linalg.eigvalsh(np.swapaxes(root, -1, -2) @ a @ root)
    trace = np.trace(a, axis1=-2, axis2=-1) + np.trace(b, axis1=-2, axis2=-1)
    shared = np.sqrt(crossed.clip(min=0)).sum(axis=-1)
    distance = ((mean_a - mean_b) ** 2).sum(axis=-1) + trace - 2 * shared
    enough = (ours[..., 0] > 1) & (theirs[..., 0] > 1)
    return np.asarray(np.where(enough, distance.clip(min=0), np.nan), dtype=np.float64)


def frechet_of_sums(sums: Floats) -> Floats:
    """[B, 2, k], summed moments of pictures and of their references, to [B] distances.

    A statistic for `bootstrap.interval` and `bootstrap.paired_difference`, `centred` there.
    """
    return frechet(sums[:, 0], sums[:, 1])


def _root(covariance: Floats) -> Floats:
    """A matrix whose product with its transpose is the covariance, [..., d, d]."""
    try:
        return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    except np.linalg.LinAlgError:  # as few vectors as dimensions, or a feature that never moves
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(values.clip(min=0))[..., None, :], dtype=np.float64)


def _gaussian(sums: Floats) -> tuple[Floats, Floats]:
    """Mean [..., d] and unbiased covariance [..., d, d]."""
    d = round((np.sqrt(8 * sums.shape[-1] + 1) - 3) / 2)
    n = sums[..., :1]
    mean = sums[..., 1 : 1 + d] / n.clip(min=1)
    rows, columns = np.triu_indices(d)
    flat = (sums[..., 1 + d :] - n * mean[..., rows] * mean[..., columns]) / (n - 1).clip(min=1)
    covariance = np.empty((*sums.shape[:-1], d, d))
    covariance[..., rows, columns] = flat
    covariance[..., columns, rows] = flat
    return mean, covariance
