"""Content embedded in a page: its own files, and pictures, each once, within a budget.

Pictures are data URIs. Photographs are coded as WebP at a quality that is lowered until all of them
fit; maps are WebP without loss. Pictures that still do not fit are left out, from the end, and
counted.
"""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sqlink.errors import DataError

QUALITIES = (90, 80, 65, 50, 35)
"""Qualities of WebP, tried in this order."""
WIDEST = 960
"""Largest width in pixels; wider pictures are scaled down."""


@dataclass
class Pictures:
    """The pictures of one page.

    `add` returns a number, `uris` the data URI of each number, or None for what did not fit.
    quality: quality of the photographs, once `uris` was called.
    """

    budget_bytes: int
    quality: int = QUALITIES[0]
    left_out: int = 0
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _sources: list[tuple[Path, bool]] = field(default_factory=list)

    def add(self, path: Path, exact: bool = False) -> int | None:
        """Return the number of a picture; None if the file does not exist.

        exact: code it without loss. Files with the same content share a number. Raises DataError if
        the file cannot be read.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        key = hashlib.sha256(data).digest()
        if key not in self._numbers:
            self._numbers[key] = len(self._sources)
            self._sources.append((path, exact))
        return self._numbers[key]

    def uris(self) -> list[str | None]:
        """Return a data URI for each number, at the best quality at which all fit the budget."""
        exact = {n: _webp(path, None) for n, (path, exact) in enumerate(self._sources) if exact}
        coded: list[bytes] = []
        for quality in QUALITIES:
            self.quality = quality
            coded = [
                exact[n] if n in exact else _webp(path, quality)
                for n, (path, _) in enumerate(self._sources)
            ]
            if sum(map(len, coded)) * 4 / 3 <= self.budget_bytes:
                break
        uris: list[str | None] = []
        room = self.budget_bytes
        for data in coded:
            room -= len(data) * 4 // 3
            uris.append(data_uri(data, "image/webp") if room >= 0 else None)
        self.left_out = uris.count(None)
        return uris


def asset(name: str) -> str:
    """Read an asset of the page: a style sheet, a script or a template."""
    return (files("experiments.report") / "assets" / name).read_text(encoding="utf-8")


def data_uri(data: bytes, kind: str) -> str:
    """Write bytes as a URI that holds them.

    >>> data_uri(b"hi", "text/plain")
    'data:text/plain;base64,aGk='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def webp(picture: Image.Image, quality: int | None) -> bytes:
    """Encode a picture as WebP; quality None: without loss."""
    buffer = io.BytesIO()
    if quality is None:
        picture.save(buffer, "WEBP", lossless=True, quality=60, method=3)
    else:
        picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def token_layers(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """Write the output of `TokenFate` for overlays: the bytes of each layer in hexadecimal.

    pixels: uint8 [h, w, 3], or [h, w, 4] for a codec with a refinement.

    >>> sorted(token_layers(np.zeros((2, 3, 4), dtype=np.uint8)))
    ['columns', 'detail', 'image', 'map', 'relevance', 'rows']
    """
    rows, columns, layers = pixels.shape
    names = ("relevance", "image", "map", "detail")[:layers]
    found = {name: pixels[..., i].tobytes().hex() for i, name in enumerate(names)}
    return {"rows": rows, "columns": columns, **found}


def _webp(path: Path, quality: int | None) -> bytes:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from error
    if picture.width > WIDEST:
        height = max(1, round(picture.height * WIDEST / picture.width))
        filter_ = Image.Resampling.NEAREST if quality is None else Image.Resampling.LANCZOS
        picture = picture.resize((WIDEST, height), filter_)
    return webp(picture, quality)
