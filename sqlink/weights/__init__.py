"""Weights that ship with the program, and what says which weights a part holds."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class FromWeights(Protocol):
    """A codec, segmenter or metric whose networks were read from a file."""

    weights_sha256: str
    """SHA-256 of that file, hex."""
