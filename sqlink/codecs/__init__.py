"""Codecs by name: SQ-GAN and the baselines it is measured against.

The module of a codec is imported when the codec is first used. This package imports nothing heavy,
because the worker processes of decoders import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlink.errors import DataError

if TYPE_CHECKING:
    from sqlink.codecs.base import Codec

BUILT_IN = {
    "sqgan": ("sqlink.codecs.sqgan.codec", ".sqg"),
    "jpeg2000": ("sqlink.codecs.jpeg2000.codec", ".j2k"),
    "bpg": ("sqlink.codecs.bpg.codec", ".bpg"),
    "jpeg": ("sqlink.codecs.jpeg", ".jpg"),
    "webp": ("sqlink.codecs.webp", ".webp"),
    "avif": ("sqlink.codecs.avif", ".avif"),
    "heic": ("sqlink.codecs.heic", ".heic"),
    "jpegxl": ("sqlink.codecs.jpegxl", ".jxl"),
    "vvc": ("sqlink.codecs.vvc", ".266"),
    "bpg_half": ("sqlink.codecs.half_resolution", ".bpgh"),
    "avif_half": ("sqlink.codecs.half_resolution", ".avifh"),
    "jpeg_half": ("sqlink.codecs.half_resolution", ".jpgh"),
    "webp_half": ("sqlink.codecs.half_resolution", ".webph"),
    "heic_half": ("sqlink.codecs.half_resolution", ".heich"),
    "jpegxl_half": ("sqlink.codecs.half_resolution", ".jxlh"),
    "external": ("sqlink.codecs.external", ".external"),
    "torch": ("sqlink.codecs.torch_adapter", ".sqt"),
    "map_only": ("sqlink.codecs.map_only", ".sqm"),
    "bpg+map": ("sqlink.codecs.map_only", ".sqb"),
}
"""Map from a name to the module that registers the codec and to the suffix of its files."""


def codec_names() -> list[str]:
    """List the names of all codecs, sorted: the built-in ones and those of installed packages."""
    from sqlink.codecs.base import CODECS

    return CODECS.names()


def load_codec(name: str, /, **options: Any) -> Codec:
    """Make the codec called `name` with `options`, such as `packet_bytes`.

    Raises ConfigError for an unknown codec or option, and names the nearest known one;
    MissingExtraError if a package that it needs is not installed.

    >>> load_codec("jpeg2000", packet_bytes=48).suffix
    '.j2k'
    """
    from sqlink.codecs.base import CODECS

    return CODECS.make(name, options)


def takes_option(name: str, option: str) -> bool:
    """Say whether the codec called `name` takes `option`. Raises ConfigError as above.

    >>> takes_option("jpeg2000", "weights")
    False
    """
    from sqlink.codecs.base import CODECS

    known = CODECS.options(name)
    return known is None or option in known


def lossless_options(name: str) -> Mapping[str, object]:
    """Return a codec's best options for a channel that neither loses nor cuts packets.

    Empty for a codec without `WithLosslessOptions`, and for an unknown one.

    >>> dict(lossless_options("jpeg2000"))
    {'layers': 1}
    """
    from sqlink.codecs.base import CODECS, WithLosslessOptions

    maker = CODECS.get(name) if name in CODECS.names() else None
    return maker.lossless_options if isinstance(maker, WithLosslessOptions) else {}


def codec_for_suffix(suffix: str) -> str:
    """Return the name of the codec whose stored files end in `suffix` (with the dot).

    Raises DataError if there is none.

    >>> codec_for_suffix(".j2k")
    'jpeg2000'
    """
    from sqlink.codecs.base import CODECS, WithSuffix

    known = {own: name for name, (_, own) in BUILT_IN.items()}
    if suffix in known:
        return known[suffix]
    for name in codec_names():
        maker = None if name in BUILT_IN else CODECS.get(name)
        if isinstance(maker, WithSuffix) and maker.suffix == suffix:
            return name
    raise DataError(f"no codec stores files in '{suffix}': known are {', '.join(sorted(known))}")
