"""Counter-based random numbers, equal on every device and independent of batch and order.

    seed + (point, picture, realisation) ── blake2b ──> key of a link ── child("noise") ──> key
    key, counter ── Philox4x32-10 ──> four 32-bit words per counter

A draw is a pure function of its link's key and its own number. The noise of a link therefore does
not depend on the other links of the batch, on how its draws are divided into chunks, or on whether
a run was interrupted. Nothing here reads or changes global random state.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, and the
known answers of its Random123 library.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

_CHILD_DOMAIN = 0x6368_6C64
"""Last counter word in key derivation; draws have 0 there, so that no draw is a child's key."""

_SPLIT_DOMAIN = 0x7370_6C74
"""Last counter word for the keys of numbered sub-streams."""


def _multiply(multiplier: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and low words of a 32 x 32 bit product; multiplier: at least 2^31.

    The product with multiplier - 2^32 fits into int64; adding x to the high word corrects it.
    """
    product = (multiplier - (1 << 32)) * x
    return (product >> 32) + x, product & _WORD


def philox4x32_10(counter: Tensor, key: Tensor) -> Tensor:
    """Apply Philox with four 32-bit words and ten rounds.

    counter: int64 [..., 4] and key: int64 [..., 2], words in [0, 2^32), least significant first;
    their leading shapes broadcast. Returns int64 [..., 4], words in [0, 2^32).

    >>> zero = torch.zeros(4, dtype=torch.int64)
    >>> [f"{w:08x}" for w in philox4x32_10(zero, zero[:2]).tolist()]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    shape = torch.broadcast_shapes(counter.shape[:-1], key.shape[:-1])
    return torch.stack([word.expand(shape) for word in (c0, c1, c2, c3)], dim=-1)


def _digest(parts: Sequence[str | int], size: int, person: bytes) -> bytes:
    """Hash parts with blake2b, each with its type and length, so that no two sequences collide."""
    state = hashlib.blake2b(digest_size=size, person=person)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, (str, int)):
            raise TypeError(f"part {part!r} of a random key must be a str or an int")
        text = str(part).encode()
        state.update(f"{'s' if isinstance(part, str) else 'i'}{len(text)}:".encode() + text)
    return state.digest()


def _words(digest: bytes) -> list[int]:
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, len(digest), 4)]


@dataclass(frozen=True)
class Randomness:
    """N independent streams of random numbers, one per link.

    keys: int64 [N, 2], 32-bit words. Draw number i of a stream is word i of its Philox output.
    `integers`, `uniform` and `normal` read the same words, so take a `child` for each purpose.

    >>> streams = Randomness.derive(7, [("point", 0, r) for r in range(3)])
    >>> whole = streams.child("noise").integers(10)
    >>> torch.equal(whole[:, 4:], streams.child("noise").integers(6, start=4))
    True
    """

    keys: Tensor

    def __post_init__(self) -> None:
        if self.keys.ndim != 2 or self.keys.shape[1] != 2 or self.keys.dtype != torch.int64:
            raise ValueError(
                f"keys must be int64 [N, 2], got {self.keys.dtype} {list(self.keys.shape)}"
            )

    @classmethod
    def derive(
        cls,
        seed: int,
        parts: Sequence[Sequence[str | int]],
        device: torch.device | str = "cpu",
    ) -> Randomness:
        """Make one stream per link; its key is a hash of the seed and the link's parts.

        parts: N sequences such as (point, picture, realisation). Equal sequences give equal
        streams. Raises TypeError for a part that is neither a str nor an int.
        """
        keys = [_words(_digest([seed, *part], 8, b"sqlink-key")) for part in parts]
        return cls(torch.tensor(keys, dtype=torch.int64, device=device).reshape(-1, 2))

    @property
    def device(self) -> torch.device:
        return self.keys.device

    def __len__(self) -> int:
        return self.keys.shape[0]

    def to(self, device: torch.device | str) -> Randomness:
        """Return the same streams, drawn on another device."""
        return Randomness(self.keys.to(device))

    def select(self, index: Tensor | Sequence[int] | slice) -> Randomness:
        """Return the streams of some links, in the order of `index` (integers, a bool mask or a
        slice).
        """
        if not isinstance(index, (slice, Tensor)):
            index = torch.tensor(list(index), dtype=torch.int64)
        if isinstance(index, Tensor):
            index = index.to(self.device)
        return Randomness(self.keys[index])

    def child(self, name: str) -> Randomness:
        """Return an independent sub-stream of each link, a function of its key and `name`."""
        words = [*_words(_digest([name], 12, b"sqlink-child")), _CHILD_DOMAIN]
        counter = torch.tensor(words, dtype=torch.int64, device=self.device)
        return Randomness(philox4x32_10(counter, self.keys)[:, :2].contiguous())

    def split(self, count: int, start: int = 0) -> Randomness:
        """Return N * count numbered sub-streams, such as one per packet.

        Entry n * count + i is sub-stream start + i of link n. It does not depend on `count` and
        `start`.
        """
        number = torch.arange(start, start + count, dtype=torch.int64, device=self.device)
        zero = torch.zeros_like(number)
        domain = torch.full_like(number, _SPLIT_DOMAIN)
        counter = torch.stack([number, zero, zero, domain], dim=-1)  # [count, 4]
        return Randomness(philox4x32_10(counter, self.keys[:, None])[..., :2].reshape(-1, 2))

    def integers(self, count: int, start: int = 0) -> Tensor:
        """Draw int64 [N, count], uniform over [0, 2^32): draws start to start + count - 1."""
        if count < 0 or start < 0:
            raise ValueError(f"count {count} and start {start} must not be negative")
        first, last = start // 4, -(-(start + count) // 4)
        block = torch.arange(first, last, dtype=torch.int64, device=self.device)
        zero = torch.zeros_like(block)
        counter = torch.stack([block & _WORD, block >> 32, zero, zero], dim=-1)  # [B, 4]
        words = philox4x32_10(counter, self.keys[:, None]).reshape(len(self), 4 * len(block))
        return words[:, start - 4 * first : start - 4 * first + count]

    def uniform(self, count: int, start: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draw [N, count], uniform in the open interval (0, 1): draws start to start + count - 1.

        float64 has 32 random bits. float32 has 23, as more would round to 1.
        """
        words = self.integers(count, start)
        if dtype == torch.float64:
            return (words.to(dtype) + 0.5) * 2.0**-32
        if dtype == torch.float32:
            return ((words >> 9).to(dtype) + 0.5) * 2.0**-23
        raise ValueError(f"dtype {dtype} must be torch.float64 or torch.float32")

    def normal(self, count: int, start: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draw [N, count], Gaussian of mean 0 and variance 1: draws start to start + count - 1.

        The Box-Muller transform makes two numbers from two words; the tails end at 6.7 standard
        deviations. The words are equal on all devices, and these numbers are equal up to rounding.
        """
        first = start // 2
        pairs = self.complex_normal(-(-(start + count) // 2) - first, first)  # [N, pairs]
        flat = torch.view_as_real(pairs).flatten(1) * math.sqrt(2)
        return flat[:, start - 2 * first : start - 2 * first + count].to(dtype)

    def complex_normal(
        self, count: int, start: int = 0, dtype: torch.dtype = torch.complex128
    ) -> Tensor:
        """Draw [N, count], circular complex Gaussian, E|x|^2 = 1: draws start to start + count - 1.

        Draw i is made from words 2i (its radius) and 2i + 1 (its angle).
        """
        radius, angle = self.uniform(2 * count, 2 * start).reshape(len(self), count, 2).unbind(-1)
        return torch.polar(torch.sqrt(-torch.log(radius)), 2 * math.pi * angle).to(dtype)


Streams = Randomness
"""`Randomness` under its earlier name."""
