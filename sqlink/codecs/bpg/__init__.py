"""BPG: HEVC intra pictures in Fabrice Bellard's container, genuine files in and out.

    encode_bpg(image, qp) -> bytes          decode_bpg(data) -> image
    codec.BPG: the codec `bpg`, fitted to a budget      conformance: comparison with libbpg

It needs PyAV (extra `bpg`), whose wheels include x265 (GPL) and libavcodec.
"""

from __future__ import annotations

from sqlink.codecs.bpg.codec import BPG
from sqlink.codecs.bpg.decoder import decode_bpg
from sqlink.codecs.bpg.encoder import encode_bpg

__all__ = ["BPG", "decode_bpg", "encode_bpg"]
