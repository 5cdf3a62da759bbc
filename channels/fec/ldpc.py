"""5G LDPC codes (3GPP TS 38.212, clauses 5.2 to 5.4), by Sionna, and their decoding.

    bits [B, k] ── encode ──> coded bits [B, n] ── ... ──> LLR [B, n] ── decode ──> bits [B, k]

One block may be sent as several words of n bits. Each word is a redundancy version, another part of
the code's circular buffer (clause 5.4.2.1). A rate below 1/5 sends several words at once, and HARQ
with incremental redundancy sends them in different attempts; the LLRs of bits in several words are
added.

There are two decoders: `layered`, of `channels.fec.layered_bp`, and `flooding`, Sionna's, the
decoder of most published curves. Blocks are decoded in chunks, which limits memory. The result of a
block does not depend on the other blocks of its chunk: `layered` guarantees this itself, and chunks
for `flooding` have one size, the last one padded.
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
"""The lowest rate of one word; a lower rate takes several words."""

VERSIONS = (0, 2, 3, 1)
"""Redundancy versions in the order in which they are sent (TS 38.214, clause 5.1.2.1)."""

SCHEDULES = ("layered", "flooding")
DEFAULT_ITERATIONS = 20

CHECK_EVERY = {"layered": 2, "flooding": 4}
"""Iterations of belief propagation between two checks of the CRC."""

_SMALLEST_BLOCK = 12
_LARGEST_BLOCK = 8448
_LARGEST_LOW_RATE_BLOCK = 3840
"""Largest block of base graph 2, which codes every rate below 1/3."""

_HIGHEST_SURE_RATE = 0.9
"""Above this rate some short blocks of base graph 2 fail without noise; base graph 1 is used."""

FIRST = (0,)
"""One word, redundancy version 0."""


_CODED_BITS_CPU = 1 << 14
_CODED_BITS_CUDA = 1 << 20
"""Most coded bits decoded at once by flooding."""

_FEWEST = 8
"""Smallest size to which a last chunk is padded, in blocks or rows."""

Holds = Callable[[Tensor], Tensor]
"""A check of messages, float32 [M, L], that returns bool [M]."""


@dataclass(frozen=True)
class Layout:
    """The division of a message into code blocks of k bits, each sent as words of n bits.

    bits: length of the message. blocks: number of code blocks. words: number of words per block.
    check: length of the code's own CRC in each word (polar codes).
    """

    bits: int
    blocks: int
    k: int
    n: int
    words: int = 1
    check: int = 0

    @property
    def padding(self) -> int:
        """Return the number of zero bits that fill the blocks."""
        return self.blocks * self.k - self.bits

    @property
    def coded_bits(self) -> int:
        """Return the number of bits that are sent for the message."""
        return self.blocks * self.words * self.n

    @property
    def code_rate(self) -> float:
        return self.k / (self.words * self.n)


def words_of(code_rate: float) -> int:
    """Return the number of words per block, the smallest with a rate of MOTHER_RATE or more each.

    >>> words_of(0.5), words_of(0.15), words_of(0.025)
    (1, 2, 8)
    """
    return max(1, math.ceil(MOTHER_RATE / code_rate - 1e-9))


def layout(bits: int, code_rate: float, bits_per_symbol: int) -> Layout:
    """Divide a packet into the smallest number of equal code blocks, each of whole symbols.

    code_rate: wanted k/n, LOWEST_RATE to HIGHEST_RATE. Because n is a whole number of symbols, the
    true rate is slightly lower, or slightly higher at the code's lowest rate.

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
    """Return the base graph that the rate requires, or None for the choice of TS 38.212."""
    if rate < 1 / 3:
        return "bg2"
    return "bg1" if rate > _HIGHEST_SURE_RATE else None


class Code:
    """An LDPC code on one device; `code` returns a cached one.

    words: number of words of n bits in a first transmission; k / (n words) determines the base
    graph. schedule: of belief propagation, one of SCHEDULES.
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
        """Smallest number of blocks to which the last chunk is padded."""

    def _make_flooding(self, several: bool) -> Any:
        """Make Sionna's decoder; for several words it adds their LLRs in the circular buffer."""
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
        """Encode bits, float32 [B, k] of 0 and 1, to V words, float32 [B, V n].

        versions: the V redundancy versions, 0 to 3.
        """
        if tuple(versions) == FIRST:
            coded: Tensor = self._encoder(bits)
        else:
            coded = self._encoder(bits, rv=list(versions)).flatten(1)
        return coded

    def iterate(
        self, llr: Tensor, iterations: int, every: int, versions: Sequence[int] = FIRST
    ) -> Iterator[Tensor]:
        """Yield the hard decisions, float32 [B, k], after each `every` iterations and the last.

        llr: float32 [B, V n], log p(1)/p(0), words of V different redundancy versions. Belief
        propagation uses the exact check rule.
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
        """Decode each message as `iterate` does, until its check holds.

        together: number of consecutive blocks of a message. Returns, for the B / together messages,
        the first decisions for which the check holds, or the last ones, float32 [M, together k],
        and whether it holds, bool [M].
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
        """Decode LLRs, float32 [B, n], log p(1)/p(0), to hard decisions, float32 [B, k]."""
        (bits,) = self.iterate(llr, iterations, iterations)
        return bits


def first_held(decisions: Iterator[Tensor], holds: Holds, together: int) -> tuple[Tensor, Tensor]:
    """Return the first decisions whose check holds, or the last; see `Code.decode_until`."""
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
    """Return the code with k information bits and words of n coded bits, cached."""
    return Code(k, n, bits_per_symbol, device, words, schedule)


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]], size: int, *rows: Tensor, fewest: int | None = None
) -> tuple[Tensor, ...]:
    """Apply `function` to `size` rows at a time; a row is repeated to pad the last chunk.

    rows: tensors of one length R > 0. fewest: pad the last chunk to a power of two that is at least
    `fewest`; None: to `size`. Returns the outputs of `function`, of R rows each.
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
