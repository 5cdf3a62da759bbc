"""5G LDPC codes and CRCs (3GPP TS 38.212, clauses 5.1 to 5.4), by Sionna, and their decoding.

    bits [B, k] ── encode ──> coded bits [B, n] ── ... ──> LLR [B, n] ── decode ──> bits [B, k]

Of one block several words of n bits may be sent, each a redundancy version: another stretch of the
code's circular buffer (clause 5.4.2.1). A rate below 1/5 is several words at once, HARQ with
incremental redundancy several words one after another; the LLRs of what two words share add up.

Two decoders: `layered`, of `channels.fec.layered_bp`, and `flooding`, Sionna's, by which most
published curves were made. Blocks of code are run in chunks, so that memory is bounded. A block's
result does not depend on how many others travel with it: `layered` sees to that itself, for
`flooding` chunks are of one size, the last one filled up.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from channels.fec.layered_bp import LayeredDecoder
from channels.fec.sionna_isolation import untouched_random_state

LOWEST_RATE = 1 / 40
HIGHEST_RATE = 0.95
MOTHER_RATE = 1 / 5
"""The lowest rate of one word; lower ones take several."""

VERSIONS = (0, 2, 3, 1)
"""Redundancy versions in the order in which they are sent (TS 38.214, clause 5.1.2.1)."""

SCHEDULES = ("layered", "flooding")
DEFAULT_ITERATIONS = 20

CHECK_EVERY = {"layered": 2, "flooding": 4}
"""Iterations of belief propagation between two checks of the CRC."""

_SMALLEST_BLOCK = 12
_LARGEST_BLOCK = 8448
_LARGEST_LOW_RATE_BLOCK = 3840
"""Base graph 2, the only one below rate 1/3."""

_HIGHEST_SURE_RATE = 0.9
"""Above it, some short blocks fail on base graph 2 without any noise; none does on base graph 1."""

FIRST = (0,)
"""One word, redundancy version 0."""


_CODED_BITS_CPU = 1 << 14
_CODED_BITS_CUDA = 1 << 20
"""In flight at once, flooding."""

_FEWEST = 8
"""Least number of blocks, or rows, that a last chunk is filled up to."""

Holds = Callable[[Tensor], Tensor]
"""A check of messages float32 [M, L]: bool [M]."""


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
    """Return the words a block, as few as keep each at MOTHER_RATE or above.

    >>> words_of(0.5), words_of(0.15), words_of(0.025)
    (1, 2, 8)
    """
    return max(1, math.ceil(MOTHER_RATE / code_rate - 1e-9))


def layout(bits: int, code_rate: float, bits_per_symbol: int) -> Layout:
    """Divide a packet into equal code blocks, as few as the code allows, each whole symbols long.

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
    """Return the base graph if the rate leaves no choice, or None for the choice of TS 38.212."""
    if rate < 1 / 3:
        return "bg2"
    return "bg1" if rate > _HIGHEST_SURE_RATE else None


class Code:
    """One LDPC code on one device. Take it from `code`, which keeps it.

    words: how many words of n bits a first transmission has; k / (n words) decides the base graph.
    schedule: of belief propagation, one of SCHEDULES.
    """

    def __init__(
        self,
        k: int,
        n: int,
        bits_per_symbol: int,
        device: str,
        words: int = 1,
        schedule: str = SCHEDULES[0],
    ) -> None:
        self.k, self.n = k, n
        self._device = device
        with untouched_random_state(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Effective coderate")
            from sionna.phy.fec.ldpc import LDPC5GEncoder

            self._encoder = LDPC5GEncoder(
                k,
                n,
                num_bits_per_symbol=bits_per_symbol,
                bg=_base_graph(k / n / words),
                precision="single",
                device=device,
                check_input=False,
            )
        self._layered = LayeredDecoder(self._encoder) if schedule == SCHEDULES[0] else None
        if self._layered is not None:
            self.chunk = self._layered.chunk
            """Blocks to run at once on this device."""
        else:
            budget = _CODED_BITS_CPU if device == "cpu" else _CODED_BITS_CUDA
            fitting = 1 << (budget // n).bit_length() - 1 if budget > n else 1
            self.chunk = max(1, min(1024, fitting))
        self._flooding = lru_cache(maxsize=2)(self._make_flooding)
        self.fewest = self.chunk if self._layered is None else min(_FEWEST, self.chunk)
        """Blocks that the last chunk is filled up to at least."""

    def _make_flooding(self, several: bool) -> Any:
        """Make Sionna's decoder; with several words it adds their LLRs in the circular buffer."""
        with untouched_random_state():
            from sionna.phy.fec.ldpc import LDPC5GDecoder

            return LDPC5GDecoder(
                self._encoder,
                cn_update="boxplus-phi",
                return_state=True,
                harq_mode=several,
                precision="single",
                device=self._device,
            )

    def encode(self, bits: Tensor, versions: Sequence[int] = FIRST) -> Tensor:
        """Encode bits: float32 [B, k] of 0 and 1. Returns float32 [B, n], one word after another.

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
        """Run belief propagation with the exact check rule and yield decisions at intervals.

        llr: float32 [B, n], log p(1)/p(0), or [B, V n], the words of V different redundancy
        versions. Yields the hard decisions float32 [B, k] after each `every` iterations and after
        the last.
        """
        several = tuple(versions) != FIRST
        if several:
            llr = llr.reshape(len(llr), len(versions), self.n)
        if self._layered is not None:
            rv = tuple(versions) if several else None
            yield from self._layered.iterate(llr, iterations, every, rv)
            return
        decoder, options = self._flooding(several), {"rv": list(versions)} if several else {}
        state: Tensor | None = None
        done = 0
        while done < iterations:
            step = min(every, iterations - done)
            bits, state = decoder(llr, num_iter=step, msg_v2c=state, **options)
            done += step
            yield bits

    def decode_until(
        self,
        llr: Tensor,
        iterations: int,
        every: int,
        holds: Holds,
        versions: Sequence[int] = FIRST,
        together: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Decode as `iterate` does, each message until a check of its decisions holds.

        together: blocks, one after another, of a message. Returns for B / together messages the
        decisions float32 [M, together k] that held first, or the last, and bool [M], which held.
        """
        if self._layered is None:
            decisions = self.iterate(llr, iterations, every, versions)
            return first_held(decisions, holds, together)
        several = tuple(versions) != FIRST
        if several:
            llr = llr.reshape(len(llr), len(versions), self.n)
        rv = tuple(versions) if several else None
        return self._layered.decode_until(llr, iterations, every, holds, rv, together)[:2]

    def decode(self, llr: Tensor, iterations: int = DEFAULT_ITERATIONS) -> Tensor:
        """Decode llr: float32 [B, n], log p(1)/p(0). Returns hard decisions float32 [B, k]."""
        (bits,) = self.iterate(llr, iterations, iterations)
        return bits


def first_held(decisions: Iterator[Tensor], holds: Holds, together: int) -> tuple[Tensor, Tensor]:
    """Return each message's first decisions that held, or the last; see `Code.decode_until`."""
    taken: Tensor | None = None
    held: Tensor | None = None
    for blocks in decisions:
        message = blocks.reshape(len(blocks) // together, -1)
        if taken is None or held is None:
            taken, held = message, holds(message)
        else:
            taken = torch.where(held[:, None], taken, message)
            held = held | holds(message)
        if bool(held.all()):
            break
    assert taken is not None
    assert held is not None
    return taken, held


@lru_cache(maxsize=32)
def code(
    k: int,
    n: int,
    bits_per_symbol: int,
    device: str,
    words: int = 1,
    schedule: str = SCHEDULES[0],
) -> Code:
    """Return the code of k information bits and words of n coded bits, cached."""
    return Code(k, n, bits_per_symbol, device, words, schedule)


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]], size: int, *rows: Tensor, fewest: int | None = None
) -> tuple[Tensor, ...]:
    """Apply `function` to `size` rows at a time, the last chunk filled up by repeating a row.

    rows: tensors of one length R > 0. fewest: fill the last chunk only to a power of two of at
    least so many rows; None: to `size`. Returns the function's outputs, of R rows each.
    """
    total = rows[0].shape[0]
    outputs = []
    for start in range(0, total, size):
        kept = min(size, total - start)
        filled = size
        if fewest is not None:
            filled = min(size, max(fewest, 1 << (kept - 1).bit_length()))
        index = torch.arange(start, start + filled, device=rows[0].device).clamp(max=total - 1)
        outputs.append([out[:kept] for out in function(*(row[index] for row in rows))])
    return tuple(torch.cat(column) for column in zip(*outputs, strict=True))
