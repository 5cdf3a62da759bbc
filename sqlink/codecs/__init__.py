"""Codecs by name: SQ-GAN and the baselines it is measured against.

A codec's module is loaded when the codec is asked for, never before, and nothing heavy with this
package: decoders run in worker processes that import it.
"""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from channels.registry import nearest
from sqlink.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sqlink.codecs.base import Codec

BUILT_IN = {
    "sqgan": ("sqlink.codecs.sqgan", ".sqg"),
    "jpeg2000": ("sqlink.codecs.jpeg2000", ".j2k"),
    "bpg": ("sqlink.codecs.bpg", ".bpg"),
}
"""Name -> the module that registers the codec, and the suffix of its stored files."""


def codec_names() -> list[str]:
    """Every codec's name, sorted: the built-in ones and those of installed packages."""
    from sqlink.codecs.base import CODECS

    return sorted({*BUILT_IN, *CODECS.names()})


def load_codec(name: str, **options: Any) -> Codec:
    """The codec called `name`, built with `options` (`packet_bytes`, and what else it takes).

    Raises ConfigError, naming the nearest one, if there is no such codec or it has no such option;
    MissingExtraError where a package that it needs is not installed.

    >>> load_codec("jpeg2000", packet_bytes=48).suffix
    '.j2k'
    """
    from sqlink.codecs.base import CODECS

    if name in BUILT_IN:
        import_module(BUILT_IN[name][0])
    elif name not in CODECS.names():
        raise ConfigError(f"unknown codec '{name}': {nearest(name, codec_names())}")
    factory = CODECS.get(name)
    accepted = signature(factory).parameters
    if not any(p.kind is Parameter.VAR_KEYWORD for p in accepted.values()):
        for option in options:
            if option not in accepted:
                raise ConfigError(
                    f"codec '{name}' has no option '{option}': {nearest(option, list(accepted))}"
                )
    return factory(**options)


def codec_for_suffix(suffix: str) -> str:
    """The name of the codec whose stored files end in `suffix` (with the dot).

    Raises DataError if there is none.

    >>> codec_for_suffix(".j2k")
    'jpeg2000'
    """
    from sqlink.codecs.base import CODECS

    known = {own: name for name, (_, own) in BUILT_IN.items()}
    if suffix in known:
        return known[suffix]
    for name in codec_names():
        if name not in BUILT_IN and getattr(CODECS.get(name), "suffix", None) == suffix:
            return name
    raise DataError(f"no codec stores files in '{suffix}': known are {', '.join(sorted(known))}")
