"""Isolation of the global random state from Sionna.

Importing `sionna.phy` seeds torch's global generator from the operating system. This would change
the next random numbers of a seeded training run. All parts of Sionna are therefore imported and
built inside `untouched_random_state`; afterwards they draw no random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Restore the global random state of Python, NumPy and torch on every device at the end."""
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
