"""SQ-GAN as a codec: pictures and maps to packets of tokens and back."""

from __future__ import annotations

from sqlink.codecs.sqgan.codec import SQGANCodec

__all__ = ["SQGANCodec"]
