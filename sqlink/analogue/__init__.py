"""Analogue baselines: pictures sent as complex symbols, with no bits in between.

An analogue codec's module is loaded when the codec is asked for, never before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlink.analogue.base import SymbolCodec

BUILT_IN = {"deepjscc": "sqlink.analogue.deepjscc"}
"""Name -> the module that registers the codec."""


def symbol_codec_names() -> list[str]:
    """List every analogue codec's name, sorted: the built-in ones and those of installed
    packages.
    """
    from sqlink.analogue.base import SYMBOL_CODECS

    return SYMBOL_CODECS.names()


def load_symbol_codec(name: str, /, **options: Any) -> SymbolCodec:
    """Make the analogue codec called `name` with `options`.

    Raises ConfigError, naming the nearest one, if there is no such codec or it has no such option;
    WeightsError where its weights cannot be read.
    """
    from sqlink.analogue.base import SYMBOL_CODECS

    return SYMBOL_CODECS.make(name, options)
