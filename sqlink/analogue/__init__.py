"""Analogue baselines, which send pictures as complex symbols without bits.

The module of an analogue codec is loaded when the codec is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlink.analogue.base import SymbolCodec

BUILT_IN = {"deepjscc": "sqlink.analogue.deepjscc"}
"""Name -> the module that registers the codec."""


def symbol_codec_names() -> list[str]:
    """Return the names of all analogue codecs, sorted, with those of installed packages."""
    from sqlink.analogue.base import SYMBOL_CODECS

    return SYMBOL_CODECS.names()


def load_symbol_codec(name: str, /, **options: Any) -> SymbolCodec:
    """Make the analogue codec called `name` with `options`.

    Raises ConfigError, with the nearest name, for an unknown codec or option, and WeightsError if
    the weights cannot be read.
    """
    from sqlink.analogue.base import SYMBOL_CODECS

    return SYMBOL_CODECS.make(name, options)
