"""Bits in the format of HEVC: most significant first, fixed length or Exp-Golomb (H.265, 9.2)."""

from __future__ import annotations

from sqlink.errors import DataError


class BitWriter:
    """Writer of bits.

    >>> bits = BitWriter()
    >>> bits.u(4, 0b1001); bits.ue(3)
    >>> bits.to_bytes().hex()
    '9200'
    """

    def __init__(self) -> None:
        self._value = 0
        self._length = 0

    def u(self, count: int, value: int) -> None:
        """Write an unsigned number in `count` bits."""
        if not 0 <= value < 1 << count:
            raise ValueError(f"{value} does not fit in {count} bits")
        self._value = self._value << count | value
        self._length += count

    def ue(self, value: int) -> None:
        """Write an unsigned number as an Exp-Golomb code of order 0."""
        self.u(2 * (value + 1).bit_length() - 1, value + 1)

    def to_bytes(self) -> bytes:
        """Return the bits so far, padded with zeros to a whole byte."""
        padding = -self._length % 8
        return (self._value << padding).to_bytes((self._length + padding) // 8, "big")


class BitReader:
    """Reader of bits; raises DataError past the end.

    >>> bits = BitReader(bytes.fromhex("9200"))
    >>> bits.u(4), bits.ue()
    (9, 3)
    """

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def u(self, count: int) -> int:
        """Read an unsigned number of `count` bits."""
        if count > self._left:
            raise DataError("the HEVC header ends too early")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def ue(self) -> int:
        """Read an Exp-Golomb code of order 0. Raises DataError above 32 bits."""
        zeros = 0
        while self.u(1) == 0:
            zeros += 1
            if zeros > 31:
                raise DataError("the HEVC header holds a number out of range")
        return (1 << zeros | self.u(zeros)) - 1
