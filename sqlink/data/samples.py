"""Conversion of a picture file's samples to colours.

Pillow returns samples of more than 8 bits as they are in the file. The header says which value is
white, whether 0 is white, and which grey is transparent; `samples_of` reads this there. It refuses
files that Pillow reads wrongly, and files that can be read in two ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TgaImagePlugin import TgaImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sqlink.data.jp2 import unfollowed
from sqlink.errors import DataError

Pixels = npt.NDArray[np.float32]

OVERSHOOT = 0.1
"""Distance by which floating-point samples may lie outside [0, 1]; they are clipped."""

# TIFF 6.0: tags, and the values that matter here.
_SUBFILE, _REDUCED = 254, 1
_BITS = 258
_COMPRESSION, _UNCOMPRESSED = 259, 1
_PHOTOMETRIC, _WHITE_IS_ZERO, _YCBCR = 262, 0, 6
_PLANAR, _SEPARATE = 284, 2
_COLOUR_MAP = 320
_FORMAT, _SIGNED, _FLOAT = 339, 2, 3
_SUBSAMPLING = 530
_REFERENCE, _FULL_RANGE = 532, (0, 255, 128, 255, 128, 255)

_PNG_DEPTH = 24
"""Offset of the bit depth in a PNG."""

_TGA_DEPTH, _TGA_DESCRIPTOR, _ATTRIBUTE_BITS = 16, 17, 0x0F
"""Offsets of the pixel depth and of the descriptor in a TGA; descriptor bits with the depth of
opacity.
"""


@dataclass(frozen=True)
class Samples:
    """How the samples of a picture are to be read.

    white: the value of white, for pictures of one channel and more than 8 bits. zero_is_white:
    whether 0 is white in them. clear: the transparent grey, as Pillow returns it, or None. opaque:
    whether to ignore the fourth channel.
    """

    white: int = 65535
    zero_is_white: bool = False
    clear: int | None = None
    opaque: bool = False


def samples_of(picture: Image.Image, path: Path) -> Samples:
    """Choose how to read the samples of an opened picture, by its header.

    Raises DataError for a file that would be read wrongly, and whatever Pillow and struct raise for
    a damaged header.
    """
    if isinstance(picture, TiffImageFile):
        return _tiff(picture, path)
    if isinstance(picture, PngImageFile):
        return _png(picture, path)
    if isinstance(picture, TgaImageFile):
        with path.open("rb") as file:
            depth, descriptor = file.read(_TGA_DESCRIPTOR + 1)[_TGA_DEPTH:]
        if depth == 16 and descriptor & _ATTRIBUTE_BITS:
            raise _unread(path, "the TGA has 1 bit of opacity, which programs read in two ways")
        return Samples(opaque=not descriptor & _ATTRIBUTE_BITS)
    if picture.format == "JPEG2000":
        with path.open("rb") as file:
            if (found := unfollowed(file)) is not None:
                raise _unread(path, f"the JPEG2000 {found}")
    return Samples()


def rgb(picture: Image.Image, samples: Samples, path: Path) -> Pixels:
    """Convert a picture of any mode to float32 [H, W, 3] in [0, 1], transparency over white.

    Raises DataError for floating-point samples that are not finite or not in [0, 1].
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        return np.repeat(_grey(picture, samples, path)[..., None], 3, axis=2)
    if picture.mode == "La":  # grey times opacity, which Pillow does not convert
        grey, opacity = np.moveaxis(np.asarray(picture).astype(np.float32) / 255, 2, 0)
        return np.repeat(np.clip(grey + 1 - opacity, 0, 1)[..., None], 3, axis=2)
    if samples.clear is not None:
        clear = np.asarray(picture.convert("L")) == samples.clear
        return np.where(clear[..., None], np.float32(1), _opaque(picture))
    if samples.opaque:
        return _opaque(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, seen)
    return _opaque(picture)


def _opaque(picture: Image.Image) -> Pixels:
    """Remove the transparency of a picture of 8 bits per sample."""
    return np.asarray(picture.convert("RGB")).astype(np.float32) / np.float32(255)


def _grey(picture: Image.Image, samples: Samples, path: Path) -> Pixels:
    """Read a picture of one channel of more than 8 bits, float32 [H, W] in [0, 1]."""
    held = np.asarray(picture)
    if picture.mode == "F":
        grey = held.astype(np.float32)
        if not np.isfinite(grey).all():
            raise DataError(f"{path} holds samples that are not finite: leave it out")
        low, high = float(grey.min()), float(grey.max())
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            raise DataError(f"{path} has samples from {low:g} to {high:g}: scale them to 0..1")
    else:
        if samples.white > 2**31:  # unsigned samples that Pillow hands on as signed
            held = held.astype(np.int32).view(np.uint32)
        grey = (held / samples.white).astype(np.float32)
    if samples.zero_is_white:
        grey = 1 - grey
    if samples.clear is not None:
        grey = np.where(held == samples.clear, np.float32(1), grey)
    return np.clip(grey, 0, 1)


def grey_step(picture: Image.Image, path: Path) -> int:
    """Return the factor by which Pillow scales grey samples of fewer than 8 bits."""
    if picture.mode != "L":
        return 1
    if isinstance(picture, PngImageFile):
        return 255 // ((1 << _png_depth(path)) - 1)
    if isinstance(picture, TiffImageFile):
        return int(255 // ((1 << picture.tag_v2.get(_BITS, (1,))[0]) - 1))
    return 1


def _png_depth(path: Path) -> int:
    """Return the bits per sample of a PNG."""
    with path.open("rb") as file:
        return file.read(_PNG_DEPTH + 1)[_PNG_DEPTH]


def _png(picture: PngImageFile, path: Path) -> Samples:
    depth = _png_depth(path)
    key = picture.info.get("transparency")
    if key is None or picture.mode not in ("L", "I;16", "RGB"):
        return Samples()
    if picture.mode == "RGB":
        if depth > 8:
            raise _unread(path, "the PNG has 16 bits a sample and one transparent colour")
        return Samples()
    if depth > 8:
        return Samples(clear=key)
    most = (1 << depth) - 1  # Pillow scales shallower samples to 8 bits, but not the key
    return Samples(clear=(key & most) * 255 // most)


def _tiff(picture: TiffImageFile, path: Path) -> Samples:
    tags = picture.tag_v2
    bits = tags.get(_BITS, (1,))[0]
    kind = tags.get(_FORMAT, (1,))[0]
    raw = tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED
    photometric = tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO)
    if tags.get(_SUBFILE, 0) & _REDUCED:
        raise _unread(path, "the first picture of the TIFF is a preview")
    if kind == _SIGNED:
        raise _unread(path, f"the TIFF has signed samples of {bits} bits, which have no white")
    if kind == _FLOAT and not raw and tags.prefix == b"MM":
        raise _unread(path, "the TIFF has compressed big-endian samples of floating point")
    if raw and bits > 8 and tags.get(_PLANAR, 1) == _SEPARATE:
        raise _unread(path, f"the TIFF has separate planes of {bits} bits a sample")
    if raw and photometric == _YCBCR and picture.mode == "YCbCr":
        exact = tuple(float(value) for value in tags.get(_REFERENCE, _FULL_RANGE))
        if tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1) or exact != _FULL_RANGE:
            raise _unread(path, "the TIFF has sub-sampled or narrow-range YCbCr")
    if picture.mode in ("P", "PA") and 0 < max(tags.get(_COLOUR_MAP, (0,))) < 256:
        raise _unread(path, "the TIFF has a colour map of 8 bits where 16 are due")
    deep = picture.mode.startswith("I") or picture.mode == "F"
    return Samples(
        white=(1 << bits) - 1 if deep and kind != _FLOAT else 65535,
        zero_is_white=deep and photometric == _WHITE_IS_ZERO,
    )


def _unread(path: Path, found: str) -> DataError:
    return DataError(f"{path} would come in wrong: {found}; save it as a PNG of 8 or 16 bits")
