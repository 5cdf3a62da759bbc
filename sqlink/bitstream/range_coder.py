"""Both ends of a range coder, with the shortest byte string that decodes to the same symbols.

The coder is constriction's. Its state is an interval [lower, lower + range) of binary fractions;
any number in it decodes to the same symbols. constriction itself writes whole 32-bit words. Here
the shortest byte string in the interval is written, and a decoder reads zeros after its end, so
that padding a packet with zeros does not change it.

`Writer` and `Reader` have one interface, so that one function defines what is coded in which order
at both ends: a writer returns the values it is given, a reader those that it reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import information
from sqlink.errors import DataError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Encoder = Any  # constriction.stream.queue.RangeEncoder, which has no type stubs
Decoder = Any


def encoder() -> Encoder:
    """Return a new encoder."""
    return constriction.stream.queue.RangeEncoder()


def decoder(data: bytes) -> Decoder:
    """Return a decoder of `data` followed by zeros."""
    padded = data + bytes(8 + -len(data) % 4)
    return constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))


def shortest_bytes(state: Encoder) -> bytes:
    """Return the fewest bytes that decode to everything encoded so far; the encoder stays usable.

    >>> coder = encoder()
    >>> coder.encode(3, constriction.stream.model.Uniform(16))
    >>> shortest_bytes(coder)
    b'0'
    """
    count: int
    lower: int
    width: int
    count, (lower, width) = state.pos()
    bits = 32 * count + 64
    point = 0
    words = state.get_compressed().tolist()
    for word in words:
        point = point << 32 | word
    point <<= bits - 32 * len(words)
    # `lower` is known modulo 2^64; the words give the rest, up to a carry.
    base = (point >> 64 << 64) + lower
    if base > point:
        base -= 1 << 64
    size = max(0, (bits - width.bit_length()) // 8)
    while True:
        shift = bits - 8 * size
        value = -(-base >> shift)
        if value << shift < base + width:
            return value.to_bytes(size, "big")
        size += 1


class EndedError(Exception):
    """Raised at the end of a stream that was cut.

    values: those of the requested symbols that are certain.
    """

    def __init__(self, values: Ints) -> None:
        super().__init__()
        self.values = values


@dataclass(frozen=True)
class Coded:
    """Symbols coded together.

    what: their kind in the ledger. model: constriction's, with its parameters. compute_bits:
    returns `bits`; it is not called where no ledger is needed.
    """

    what: str
    symbols: NDArray[np.int32]
    model: tuple[Any, ...]
    compute_bits: Callable[[], Floats]

    @cached_property
    def bits(self) -> Floats:
        """Information of each symbol, bits, float64."""
        return self.compute_bits()

    @cached_property
    def total(self) -> float:
        """Sum of `bits`."""
        return float(np.add.reduce(self.bits))


class Port(ABC):
    """One end of a stream of symbols. `coded` holds what was coded, in order."""

    def __init__(self) -> None:
        self.coded: list[Coded] = []
        self._summed = 0, 0.0  # parts, and their bits

    @property
    def bits(self) -> float:
        """Information coded so far, bits."""
        count, total = self._summed
        for part in self.coded[count:]:
            total += part.total
        self._summed = len(self.coded), total
        return total

    def numbers(self, what: str, values: Ints, size: int) -> Ints:
        """Code numbers 0..size-1, all equally likely."""
        if size == 1:
            return np.zeros_like(values)
        symbols = self._code(values, (_uniform(size),))
        compute_bits = partial(np.full, symbols.size, np.log2(size))
        return self._done(what, symbols, (_uniform(size),), compute_bits)

    def number(self, what: str, value: int, size: int) -> int:
        """Code one number 0..size-1."""
        return int(self.numbers(what, np.array([value]), size)[0])

    def indices(self, what: str, values: Ints, weights: Floats, bits: Floats | None = None) -> Ints:
        """Code n indices by their weights, whole numbers float64 [n, J]. bits: [n], where known."""
        model = (_categorical(), weights)
        symbols = self._code(values, model)
        compute_bits = (
            partial(information, weights, symbols) if bits is None else partial(np.asarray, bits)
        )
        return self._done(what, symbols, model, compute_bits)

    def flags(self, what: str, values: Bools, chances: Floats, bits: Floats | None = None) -> Bools:
        """Code n flags, each with its chance to be True. bits: [n], where known."""
        model = (_bernoulli(), chances)
        symbols = self._code(values, model)
        compute_bits = (
            partial(flag_bits, symbols, chances) if bits is None else partial(np.asarray, bits)
        )
        self.coded.append(Coded(what, symbols, model, compute_bits))
        return symbols.astype(np.bool_)

    def _done(
        self,
        what: str,
        symbols: NDArray[np.int32],
        model: tuple[Any, ...],
        compute_bits: Callable[[], Floats],
    ) -> Ints:
        self.coded.append(Coded(what, symbols, model, compute_bits))
        return symbols.astype(np.int64)

    @abstractmethod
    def _code(self, values: NDArray[Any], model: tuple[Any, ...]) -> NDArray[np.int32]:
        """Write the values' symbols, or read as many."""


class Writer(Port):
    """Encode the values that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.coder = encoder()

    def fork(self) -> Writer:
        """Return a copy that goes on from here."""
        other = Writer()
        other.coder, other.coded = self.coder.clone(), list(self.coded)
        other._summed = self._summed
        return other

    def replay(self, coded: list[Coded]) -> None:
        """Encode the symbols that a reader decoded."""
        for part in coded:
            self._code(part.symbols, part.model)
            self.coded.append(part)

    def to_bytes(self) -> bytes:
        """Return the shortest bytes that decode to everything encoded, at least one byte."""
        return shortest_bytes(self.coder) or b"\0"

    def _code(self, values: NDArray[Any], model: tuple[Any, ...]) -> NDArray[np.int32]:
        symbols = values.astype(np.int32, copy=False)
        if symbols.size:
            self.coder.encode(symbols, *model)
        return symbols


class Reader(Port):
    """Decode bytes followed by zeros; of the values that it is given only the number counts.

    cut: the bytes are only the beginning of a stream. Symbols are then decoded as long as they do
    not depend on the missing bytes; EndedError holds the last ones. Raises DataError for bytes that
    no stream can have.
    """

    def __init__(self, data: bytes, cut: bool = False) -> None:
        super().__init__()
        self.coder = decoder(data)
        self.highest = decoder(data + b"\xff" * (16 + -len(data) % 4)) if cut else None

    def _code(self, values: NDArray[Any], model: tuple[Any, ...]) -> NDArray[np.int32]:
        if not values.size:
            return values.astype(np.int32)
        parameters = model if len(model) > 1 else (*model, values.size)
        try:
            lowest = np.asarray(self.coder.decode(*parameters), dtype=np.int32)
            if self.highest is None:
                return lowest
        except AssertionError as error:
            raise DataError("a packet is damaged: its range coder has no such symbol") from error
        try:
            highest = np.asarray(self.highest.decode(*parameters), dtype=np.int32)
        except AssertionError:
            raise EndedError(np.empty(0, dtype=np.int64)) from None
        same = lowest == highest
        if not same.all():
            raise EndedError(lowest[: int(same.argmin())].astype(np.int64))
        return lowest


def flag_bits(flags: NDArray[Any], chances: Floats) -> Floats:
    """Return the information of n flags, bits, [n], given each one's chance to be True."""
    bits: Floats = -np.log2(np.where(flags, chances, 1 - chances))
    return bits


@lru_cache(maxsize=4096)
def _uniform(size: int) -> Any:
    return constriction.stream.model.Uniform(size)


@lru_cache(maxsize=1)
def _categorical() -> Any:
    return constriction.stream.model.Categorical(perfect=False)


@lru_cache(maxsize=1)
def _bernoulli() -> Any:
    return constriction.stream.model.Bernoulli(perfect=False)
