"""Full float32 wherever a result is compared, stored or sent.

On CUDA, PyTorch lets convolutions and matrix products run in TF32, whose ten bits of mantissa move
tokens and maps from device to device; cuDNN also picks algorithms by timing. Codecs and segmenters
run without either. Training is free to do as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Disable TF32 and timing-based choice of algorithms, as a context or a decorator.

    >>> with full_precision():
    ...     torch.backends.cuda.matmul.allow_tf32
    False
    """
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
