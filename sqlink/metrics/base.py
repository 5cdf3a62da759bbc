"""What every picture metric is: N pictures against N references, one number a picture.

Metrics of meaning (`semantic`) are no such numbers: they keep confusion matrices, which add up.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from channels.registry import Registry
from sqlink.errors import DataError


@runtime_checkable
class Metric(Protocol):
    """A distance or likeness between a picture and its reference."""

    name: str
    unit: str
    """As written behind the number; empty where there is none."""
    higher_is_better: bool

    def unavailable(self, height: int, width: int) -> str | None:
        """Why pictures of that size have no such number; None where they have. A sweep shows the
        reason and stores NaN."""
        ...

    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        """images, reference: float32 [N, 3, H, W], RGB in [0, 1]. Returns float64 [N] on the CPU.

        A picture's number does not depend on the batch it comes in. Raises DataError where the
        shapes differ or the size is one that `unavailable` names.
        """
        ...


METRICS: Registry[Metric] = Registry(
    "metric",
    "sqlink.metrics",
    {
        "lpips": "sqlink.metrics.perceptual",
        "ms_ssim": "sqlink.metrics.distortion",
        "psnr": "sqlink.metrics.distortion",
    },
)
register = METRICS.register


def check_pair(name: str, images: Tensor, reference: Tensor) -> None:
    """Raises DataError unless both are RGB pictures of one shape."""
    if images.shape != reference.shape or images.dim() != 4 or images.shape[1] != 3:
        raise DataError(
            f"{name} compares RGB pictures of one shape [N, 3, H, W]; got {tuple(images.shape)} "
            f"and {tuple(reference.shape)}"
        )
