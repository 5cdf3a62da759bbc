"""CRCs of 3GPP TS 38.212, clause 5.1, by Sionna."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from channels.fec.sionna_isolation import untouched_random_state

CRC_BITS = {"crc24a": 24, "crc16": 16}


class Crc:
    """A CRC over messages of one length on one device; `crc` returns a cached one."""

    def __init__(self, name: str, bits: int, device: str) -> None:
        with untouched_random_state():
            from sionna.phy.fec.crc import CRCDecoder, CRCEncoder

            self._encoder = CRCEncoder(name.upper(), k=bits, precision="single", device=device)
            self._decoder = CRCDecoder(self._encoder, precision="single", device=device)

    def append(self, bits: Tensor) -> Tensor:
        """Append the CRC to messages, float32 [R, bits]. Returns float32 [R, bits + CRC]."""
        protected: Tensor = self._encoder(bits)
        return protected

    def holds(self, protected: Tensor) -> Tensor:
        """Check messages with CRC, float32 [R, bits + CRC]. Returns bool [R]."""
        verdict: Tensor = self._decoder(protected)[1]
        return verdict.squeeze(-1)


@lru_cache(maxsize=32)
def crc(name: str, bits: int, device: str) -> Crc:
    """Return the CRC `name` (a key of CRC_BITS) over messages of `bits` bits, cached."""
    return Crc(name, bits, device)
