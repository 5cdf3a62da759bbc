"""Full float32 precision for results that are compared, stored or sent.

On CUDA, PyTorch lets convolutions and matrix products run in TF32, whose mantissa of ten bits
changes tokens and maps between devices; cuDNN also chooses algorithms by timing. Codecs and
segmenters disable both. Training may use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Disable TF32 and the choice of algorithms by timing, as a context or a decorator.

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
