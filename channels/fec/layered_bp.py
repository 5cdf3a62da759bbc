"""Layered belief propagation for the 5G LDPC codes (3GPP TS 38.212, clause 5.3.2).

    LLR [B, V, n] ── rate recovery ──> odds of every bit [columns·Z, B]
                                         │  for each row of the base graph, Z checks at a time:
                                         │  gather by the circulants' shifts, divide by the row's
                                         └─ last messages, tanh rule, multiply, write back

The code, its parity checks, filler bits, redundancy versions and interleaver are those of Sionna's
encoder; only the schedule of the messages is different. Each row uses the results of the earlier
rows at once (Mansour and Shanbhag, "High-throughput LDPC decoders", IEEE Trans. VLSI Systems 11(6),
2003; Hocevar, SiPS 2004), so that about half of the iterations of flooding suffice. Rows whose own
parity bit was not sent carry no information and are left out; this is exact.

Messages are odds p(0)/p(1), and the check rule is the exact one ("boxplus"),

    t_i = (odds_i - 1) / (odds_i + 1),    p = Π t_i,    reply_i = (t_i + p) / (t_i - p).

It needs neither logarithms nor exponentials, only operations whose rounding IEEE 754 defines: the
result of a block is bit for bit equal alone and in a batch, on one thread and on many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sionna.phy.fec.ldpc import LDPC5GEncoder

DEFAULT_LAYERED_ITERATIONS = 10
"""As good as 20 iterations of flooding, or better (`python -m channels.validation.benchmark`)."""

_PUNCTURED_COLUMNS = 2
"""Columns of the base graph that are never sent, TS 38.212, clause 5.4.2.1."""

_CERTAIN_LLR = 60.0
"""|LLR| of a known bit, and the largest |LLR| of any bit after an iteration."""

_CLOSEST_ODDS = 2.0**21
"""The largest odds that a check uses, |LLR| 14.6: 1 - |t| is then 2^-20, eight steps of float32."""

_NOT_ZERO = 2.0**-30
"""Added to odds - 1, whose smallest step is 2^-24, to avoid a division by 0 for an erased bit."""

_EDGES_CPU = 1 << 20
_EDGES_CUDA = 1 << 26
"""Most messages in memory: about 4 MB fit into a CPU's caches, and 256 MB fill a GPU."""


@dataclass(frozen=True)
class _Layer:
    """One row of the base graph: Z checks that share no bit.

    bits: int64 [degree·Z], the bits that are checked, column by column. parity: index of the
    schedule's parity column that only this row checks, or None.
    """

    bits: Tensor
    degree: int
    parity: int | None


@dataclass(frozen=True)
class _Schedule:
    """The rows that carry information for the versions sent, in the order of processing.

    sent: for each transmission int64 [n], the bit of the code word that each LLR belongs to.
    parity: int64 [columns·Z], the bits of the columns that only one row checks.
    """

    sent: tuple[Tensor, ...]
    layers: tuple[_Layer, ...]
    parity: Tensor

    @property
    def messages(self) -> int:
        """Return the number of messages of one block."""
        return sum(len(layer.bits) for layer in self.layers)


@dataclass
class _State:
    """The state of B blocks: odds p(0)/p(1) [bits, B], fixed t of the parity columns, messages."""

    odds: Tensor
    parity: Tensor
    replies: list[Tensor]

    def select(self, blocks: Tensor) -> _State:
        """Return the state of some blocks, int64 [fewer]."""
        return _State(
            self.odds[:, blocks],
            self.parity[..., blocks],
            [reply[:, blocks] for reply in self.replies],
        )


def _product(factors: Tensor) -> Tensor:
    """Multiply over the first axis, [d, ...] to [1, ...], in a fixed order."""
    while len(factors) > 1:
        half = len(factors) // 2
        product = factors[:half] * factors[half : 2 * half]
        if len(factors) % 2:
            product[0] *= factors[-1]
        factors = product
    return factors


class LayeredDecoder:
    """A layered decoder for the code of one of Sionna's encoders, on the encoder's device.

    encoder: an `LDPC5GEncoder`. An LLR is log p(1)/p(0), 0 for an erased bit. With `rv`, llr is
    float [B, V, n], one row for each of the V redundancy versions in `rv` (0 to 3, TS 38.212 table
    5.4.2.1-2; LLRs of equal versions are added); without it, [B, n].
    """

    def __init__(self, encoder: LDPC5GEncoder) -> None:
        self.k, self.n = int(encoder.k), int(encoder.n)
        self._encoder = encoder
        self._z = int(encoder.z)
        self._device = torch.device(encoder.device)
        first = encoder.pcm[:: self._z].tocsr()  # the first check of each row of the base graph
        rows = np.repeat(np.arange(first.shape[0]), np.diff(first.indptr))
        columns, shifts = np.divmod(first.indices, self._z)
        degree = np.bincount(columns)
        core = int(np.flatnonzero(degree > 1).max()) + 1
        self._core_columns = core
        self._base_rows = [
            sorted(zip(columns[rows == r].tolist(), shifts[rows == r].tolist(), strict=True))
            for r in range(first.shape[0])
        ]
        self._schedule = lru_cache(maxsize=16)(self._make_schedule)

    @cached_property
    def chunk(self) -> int:
        """Return the number of blocks to decode at once on this device, a power of 2, 8 to 1024."""
        budget = _EDGES_CUDA if self._device.type == "cuda" else _EDGES_CPU
        fitting = max(1, budget // self._schedule(None).messages)
        return min(1024, max(8, 1 << fitting.bit_length() - 1))

    def decode(
        self,
        llr: Tensor,
        iterations: int = DEFAULT_LAYERED_ITERATIONS,
        rv: Sequence[int] | None = None,
    ) -> Tensor:
        """Return hard decisions, float32 [B, k], after `iterations` iterations, at least one."""
        (bits,) = self.iterate(llr, iterations, iterations, rv)
        return bits

    def iterate(
        self, llr: Tensor, iterations: int, every: int, rv: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """Yield the hard decisions, float32 [B, k], after each `every` iterations and the last."""
        schedule = self._schedule(None if rv is None else tuple(rv))
        state = self._start(schedule, llr)
        done = 0
        while done < iterations:
            step = min(every, iterations - done)
            self._run(schedule, state, step)
            done += step
            yield self._decisions(state)

    def decode_until(
        self,
        llr: Tensor,
        iterations: int,
        every: int,
        holds: Callable[[Tensor], Tensor],
        rv: Sequence[int] | None = None,
        together: int = 1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode each message until its check holds.

        holds: returns bool [M] from the hard decisions of M messages, float32 [M, together·k]; it
        is called after each `every` iterations and after the last one. together: number of
        consecutive blocks of a message; B is a multiple of it.

        Returns, for the B / together messages, the first decisions for which the check holds, or
        the last ones, float32 [M, together·k]; whether it holds, bool [M]; and the iterations used,
        int64 [M].
        """
        schedule = self._schedule(None if rv is None else tuple(rv))
        state = self._start(schedule, llr)
        messages = len(llr) // together
        bits = llr.new_zeros(messages, together * self.k, dtype=torch.float32)
        held = torch.zeros(messages, dtype=torch.bool, device=llr.device)
        spent = torch.zeros(messages, dtype=torch.int64, device=llr.device)
        running = torch.arange(messages, device=llr.device)  # the messages in `state`
        done = 0
        while done < iterations and messages:
            step = min(every, iterations - done)
            self._run(schedule, state, step)
            done += step
            waiting = ~held[running]
            decisions = self._decisions(state).reshape(len(running), -1)
            found = holds(decisions)
            bits[running[waiting]] = decisions[waiting]
            spent[running[waiting]] = done
            held[running] |= found
            left = (~held[running]).nonzero().squeeze(1)
            if not len(left):
                break
            if 4 * len(left) <= 3 * len(running):
                blocks = left[:, None] * together + torch.arange(together, device=llr.device)
                state = state.select(blocks.flatten())
                running = running[left]
        return bits, held, spent

    def _make_schedule(self, rv: tuple[int, ...] | None) -> _Schedule:
        """Make the schedule of these redundancy versions; None: version 0, llr [B, n]."""
        encoder, z, core = self._encoder, self._z, self._core_columns
        order = np.arange(self.n)
        if encoder.num_bits_per_symbol is not None:
            order = encoder.out_int.cpu().numpy().astype(np.int64)
        known_from, known_to = self.k, int(encoder.k_ldpc)
        kept = np.delete(np.arange(int(encoder.n_ldpc)), np.s_[known_from:known_to])
        buffer = kept[_PUNCTURED_COLUMNS * z :]
        starts = encoder.get_start_positions_comp(list(rv) if rv is not None else [0])
        sent = [buffer[(start + order) % len(buffer)] for start in starts]

        heard = np.zeros(int(encoder.n_ldpc) // z, dtype=bool)
        heard[np.concatenate(sent) // z] = True
        rows = []
        parity: list[int] = []
        for row in self._base_rows:
            own = [column for column, _ in row if column >= core]
            if own and not heard[own[0]]:
                continue
            unsent = sum(column < _PUNCTURED_COLUMNS for column, _ in row)
            seen = [entry for entry in row if entry[0] < core]
            rows.append((unsent, len(seen), seen, len(parity) if own else None))
            parity += own
        rows.sort(key=lambda entry: entry[:2])

        lane = np.arange(z)
        layers = []
        for _, size, seen, slot in rows:
            bits = np.concatenate([column * z + (lane + shift) % z for column, shift in seen])
            layers.append(_Layer(self._indices(bits), size, slot))
        own_bits = (np.array(parity, dtype=np.int64)[:, None] * z + lane).reshape(-1)
        return _Schedule(
            tuple(self._indices(bits) for bits in sent), tuple(layers), self._indices(own_bits)
        )

    def _indices(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self._device)

    @torch.no_grad()
    def _start(self, schedule: _Schedule, llr: Tensor) -> _State:
        """Return the state before the first iteration: the odds of all bits of the code word."""
        versions = len(schedule.sent)
        rows = llr.unsqueeze(1) if llr.ndim == 2 else llr
        if rows.shape[1:] != (versions, self.n):
            raise ValueError(f"LLRs of shape {list(llr.shape)} for {versions} x {self.n} bits")
        encoder, z = self._encoder, self._z
        blocks = len(rows)
        every = torch.zeros(int(encoder.n_ldpc), blocks, dtype=torch.float64, device=self._device)
        for version, bits in enumerate(schedule.sent):
            every[bits] += rows[:, version].to(torch.float64).t()
        every[self.k : int(encoder.k_ldpc)] = -_CERTAIN_LLR

        def odds(of: Tensor) -> Tensor:
            return (-of).clamp(-_CERTAIN_LLR, _CERTAIN_LLR).exp().to(torch.float32)

        parity = odds(every[schedule.parity]).clamp(1 / _CLOSEST_ODDS, _CLOSEST_ODDS)
        return _State(
            odds(every[: self._core_columns * z]),
            ((parity - 1) / (parity + 1)).reshape(len(parity) // z, z, blocks),
            [torch.ones(len(layer.bits), blocks, device=self._device) for layer in schedule.layers],
        )

    @torch.no_grad()
    def _run(self, schedule: _Schedule, state: _State, iterations: int) -> None:
        """Run iterations on `state`, in place."""
        z, odds = self._z, state.odds
        blocks = odds.shape[1]
        largest = max(len(layer.bits) for layer in schedule.layers)
        scratch = [torch.empty(largest, blocks, device=odds.device) for _ in range(3)]
        certain = float(np.exp(_CERTAIN_LLR))
        for _ in range(iterations):
            for layer, reply in zip(schedule.layers, state.replies, strict=True):
                said, below, t = (part[: len(layer.bits)] for part in scratch)
                torch.index_select(odds, 0, layer.bits, out=said)
                said /= reply
                torch.clamp(said, 1 / _CLOSEST_ODDS, _CLOSEST_ODDS, out=below)
                torch.sub(below, 1, out=t)
                t += _NOT_ZERO
                below += 1
                t /= below
                factors = t.view(layer.degree, z, blocks)
                product = _product(factors)
                if layer.parity is not None:
                    product *= state.parity[layer.parity]
                torch.add(factors, product, out=reply.view(layer.degree, z, blocks))
                factors -= product
                reply /= t
                said *= reply
                odds.index_copy_(0, layer.bits, said)
            odds.clamp_(1 / certain, certain)

    def _decisions(self, state: _State) -> Tensor:
        return (state.odds[: self.k] <= 1).t().to(torch.float32).contiguous()
