"""Keep a library from touching the program's global random state.

Importing `sionna.phy` seeds torch's global generator from the operating system, and so would change
what a seeded training run draws next. Everything of Sionna here is imported and built inside
`untouched_random_state`; what it computes afterwards draws nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Restore, at the end, the global random state of Python, NumPy and torch on every device."""
    python, numpy_state, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
