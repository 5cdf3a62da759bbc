"""5G LDPC codes and CRCs (3GPP TS 38.212, clauses 5.1 to 5.4), by Sionna.

    bits [B, k] ── encode ──> coded bits [B, n] ── ... ──> LLR [B, n] ── decode ──> bits [B, k]

Of one block several words of n bits may be sent, each a redundancy version: another stretch of the
code's circular buffer (clause 5.4.2.1). A rate below 1/5 is several words at once, HARQ with
incremental redundancy several words one after another; the LLRs of what two words share add up.

Blocks of code are run in chunks of one fixed size, the last one filled up, so that memory is
bounded and a block's result does not depend on how many others travel with it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from channels.isolation import untouched_random_state

LOWEST_RATE = 1 / 40
HIGHEST_RATE = 0.95
MOTHER_RATE = 1 / 5
"""The lowest rate of one word; lower ones take several."""

VERSIONS = (0, 2, 3, 1)
"""Redundancy versions in the order in which they are sent (TS 38.214, clause 5.1.2.1)."""

DEFAULT_ITERATIONS = 20

_SMALLEST_BLOCK = 12
_LARGEST_BLOCK = 8448
_LARGEST_LOW_RATE_BLOCK = 3840
"""Base graph 2, the only one below rate 1/3."""

_HIGHEST_SURE_RATE = 0.9
"""Above it, some short blocks fail on base graph 2 without any noise; none does on base graph 1."""

FIRST = (0,)
"""One word, redundancy version 0."""

CRC_BITS = {"crc24a": 24, "crc16": 16}

_CODED_BITS_CPU = 1 << 14
_CODED_BITS_CUDA = 1 << 20


@dataclass(frozen=True)
class Layout:
    """How a message is cut: `blocks` code blocks of k bits, each sent as `words` words of n bits.

    bits: of the message. check: bits in each word that are the code's own CRC (polar codes).
    """

    bits: int
    blocks: int
    k: int
    n: int
    words: int = 1
    check: int = 0

    @property
    def padding(self) -> int:
        """Zero bits that fill up the blocks."""
        return self.blocks * self.k - self.bits

    @property
    def coded_bits(self) -> int:
        """Bits sent of the whole message, once."""
        return self.blocks * self.words * self.n

    @property
    def code_rate(self) -> float:
        return self.k / (self.words * self.n)


def words_of(code_rate: float) -> int:
    """Words a block, as few as keep each at MOTHER_RATE or above.

    >>> words_of(0.5), words_of(0.15), words_of(0.025)
    (1, 2, 8)
    """
    return max(1, math.ceil(MOTHER_RATE / code_rate - 1e-9))


def layout(bits: int, code_rate: float, bits_per_symbol: int) -> Layout:
    """Equal code blocks, as few as the code allows, each a whole number of symbols long.

    code_rate: k/n wanted, LOWEST_RATE to HIGHEST_RATE; whole symbols make the true one a little
    lower, or, where the code cannot go lower, a little higher.

    >>> layout(8 * 96 + 24, 0.5, 2)
    Layout(bits=792, blocks=1, k=792, n=1584, words=1, check=0)
    >>> layout(8 * 96 + 24, 0.1, 2)
    Layout(bits=792, blocks=1, k=792, n=3960, words=2, check=0)
    """
    words = words_of(code_rate)
    largest = _LARGEST_BLOCK if code_rate >= 1 / 3 else _LARGEST_LOW_RATE_BLOCK
    blocks = -(-bits // largest)
    k = max(_SMALLEST_BLOCK, -(-bits // blocks))
    lowest = 1 / 3 if k > _LARGEST_LOW_RATE_BLOCK else MOTHER_RATE
    symbols = math.ceil(k / code_rate / words / bits_per_symbol - 1e-9)
    symbols = min(symbols, math.floor(k / lowest / bits_per_symbol + 1e-9))
    return Layout(bits, blocks, k, symbols * bits_per_symbol, words)


def _base_graph(rate: float) -> str | None:
    """The base graph where the rate leaves no choice, or None for the choice of TS 38.212."""
    if rate < 1 / 3:
        return "bg2"
    return "bg1" if rate > _HIGHEST_SURE_RATE else None


class Code:
    """One LDPC code on one device. Take it from `code`, which keeps it.

    words: how many words of n bits a first transmission has; k / (n words) decides the base graph.
    """

    def __init__(self, k: int, n: int, bits_per_symbol: int, device: str, words: int = 1) -> None:
        self.k, self.n = k, n
        self._device = device
        with untouched_random_state(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Effective coderate")
            from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

            self._encoder = LDPC5GEncoder(
                k,
                n,
                num_bits_per_symbol=bits_per_symbol,
                bg=_base_graph(k / n / words),
                precision="single",
                device=device,
                check_input=False,
            )
            self._decoder = LDPC5GDecoder(
                self._encoder,
                cn_update="boxplus-phi",
                return_state=True,
                precision="single",
                device=device,
            )
        budget = _CODED_BITS_CPU if device == "cpu" else _CODED_BITS_CUDA
        self.chunk = max(1, min(1024, 1 << (budget // n).bit_length() - 1)) if budget > n else 1
        """Blocks to run at once on this device."""

    @cached_property
    def _combiner(self) -> Any:
        """The decoder of several words: Sionna's adds their LLRs up in the circular buffer."""
        with untouched_random_state():
            from sionna.phy.fec.ldpc import LDPC5GDecoder

            return LDPC5GDecoder(
                self._encoder,
                cn_update="boxplus-phi",
                return_state=True,
                harq_mode=True,
                precision="single",
                device=self._device,
            )

    def encode(self, bits: Tensor, versions: Sequence[int] = FIRST) -> Tensor:
        """bits: float32 [B, k] of 0 and 1. Returns float32 [B, n], one word after another.

        versions: V redundancy versions, 0 to 3; [B, V n] then.
        """
        if tuple(versions) == FIRST:
            coded: Tensor = self._encoder(bits)
        else:
            coded = self._encoder(bits, rv=list(versions)).flatten(1)
        return coded

    def iterate(
        self, llr: Tensor, iterations: int, every: int, versions: Sequence[int] = FIRST
    ) -> Iterator[Tensor]:
        """Belief propagation (flooding, boxplus by phi), looked at again and again.

        llr: float32 [B, n], log p(1)/p(0), or [B, V n], the words of V different redundancy
        versions. Yields the hard decisions float32 [B, k] after each `every` iterations and after
        the last.
        """
        decoder, options = self._decoder, {}
        if tuple(versions) != FIRST:
            decoder, options = self._combiner, {"rv": list(versions)}
            llr = llr.reshape(len(llr), len(versions), self.n)
        state: Tensor | None = None
        done = 0
        while done < iterations:
            step = min(every, iterations - done)
            bits, state = decoder(llr, num_iter=step, msg_v2c=state, **options)
            done += step
            yield bits

    def decode(self, llr: Tensor, iterations: int = DEFAULT_ITERATIONS) -> Tensor:
        """llr: float32 [B, n], log p(1)/p(0). Returns hard decisions float32 [B, k]."""
        (bits,) = self.iterate(llr, iterations, iterations)
        return bits


@lru_cache(maxsize=32)
def code(k: int, n: int, bits_per_symbol: int, device: str, words: int = 1) -> Code:
    """The code of k information bits and words of n coded bits, kept between calls."""
    return Code(k, n, bits_per_symbol, device, words)


class Crc:
    """One CRC over messages of one length on one device. Take it from `crc`, which keeps it."""

    def __init__(self, name: str, bits: int, device: str) -> None:
        with untouched_random_state():
            from sionna.phy.fec.crc import CRCDecoder, CRCEncoder

            self._encoder = CRCEncoder(name.upper(), k=bits, precision="single", device=device)
            self._decoder = CRCDecoder(self._encoder, precision="single", device=device)

    def append(self, bits: Tensor) -> Tensor:
        """bits: float32 [R, bits]. Returns float32 [R, bits + CRC]."""
        protected: Tensor = self._encoder(bits)
        return protected

    def holds(self, protected: Tensor) -> Tensor:
        """protected: float32 [R, bits + CRC]. Returns bool [R]."""
        verdict: Tensor = self._decoder(protected)[1]
        return verdict.squeeze(-1)


@lru_cache(maxsize=32)
def crc(name: str, bits: int, device: str) -> Crc:
    """The CRC `name` (a key of CRC_BITS) over messages of `bits` bits, kept between calls."""
    return Crc(name, bits, device)


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]], size: int, *rows: Tensor
) -> tuple[Tensor, ...]:
    """Apply `function` to `size` rows at a time, the last chunk filled up by repeating a row.

    rows: tensors of one length R > 0. Returns the function's outputs, of R rows each.
    """
    total = rows[0].shape[0]
    outputs = []
    for start in range(0, total, size):
        index = torch.arange(start, start + size, device=rows[0].device).clamp(max=total - 1)
        kept = min(size, total - start)
        outputs.append([out[:kept] for out in function(*(row[index] for row in rows))])
    return tuple(torch.cat(column) for column in zip(*outputs, strict=True))
