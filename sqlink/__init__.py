"""SQLink: a semantic communication link simulator. Pictures in, pictures out.

    from sqlink import Link, Rate, Receiver, Transmitter, load_codec

    codec = load_codec("jpeg2000")
    streams = codec.encode(images, Rate(bpp=0.04))

Names are imported at first use, so that importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlink.codecs import load_codec
    from sqlink.codecs.base import Codec, Decoded, Rate, Received, Session, Stream, Unreachable
    from sqlink.crossing import pack, unpack
    from sqlink.data.pictures import load_map, load_picture, save_map, save_picture
    from sqlink.errors import SQLinkError
    from sqlink.link import Link, LinkResult
    from sqlink.receiver import Receiver
    from sqlink.transmitter import Transmitter

__all__ = [
    "Codec",
    "Decoded",
    "Link",
    "LinkResult",
    "Rate",
    "Received",
    "Receiver",
    "SQLinkError",
    "Session",
    "Stream",
    "Transmitter",
    "Unreachable",
    "load_codec",
    "load_map",
    "load_picture",
    "pack",
    "save_map",
    "save_picture",
    "unpack",
]

_HOMES = {
    "load_codec": "sqlink.codecs",
    "Codec": "sqlink.codecs.base",
    "Decoded": "sqlink.codecs.base",
    "Rate": "sqlink.codecs.base",
    "Received": "sqlink.codecs.base",
    "Session": "sqlink.codecs.base",
    "Stream": "sqlink.codecs.base",
    "Unreachable": "sqlink.codecs.base",
    "load_map": "sqlink.data.pictures",
    "load_picture": "sqlink.data.pictures",
    "save_map": "sqlink.data.pictures",
    "save_picture": "sqlink.data.pictures",
    "SQLinkError": "sqlink.errors",
    "Link": "sqlink.link",
    "LinkResult": "sqlink.link",
    "pack": "sqlink.crossing",
    "unpack": "sqlink.crossing",
    "Receiver": "sqlink.receiver",
    "Transmitter": "sqlink.transmitter",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sqlink' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
