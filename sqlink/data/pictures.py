"""Pictures and maps, from files to tensors and back.

A picture of any format is read as a viewer shows it: rotated as its metadata say, transparency over
white, 16 bits scaled, palettes, grey and CMYK converted to RGB (see `samples`). A map is a lossless
picture of class ids, in grey or with a palette, 255 for "no label". Files are written under a
temporary name and then moved, so that no file is ever incomplete.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from channels.atomic_write import whole_file
from sqlink.data.classes import CAMVID, NO_LABEL, ClassSet, listed
from sqlink.data.samples import grey_step, rgb, samples_of
from sqlink.errors import ConfigError, DataError

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM", "TGA")
"""Pillow's names of the readable formats; none of them runs another program."""

MAP_FORMATS = ("PNG", "TIFF", "BMP")
"""Formats that keep class ids unchanged; writers of GIF renumber a palette."""

SOFTWARE = "SQLink"
"""Text chunk "Software" of the PNGs that are written here."""

MIN_SIDE = 16
"""Shortest side of a picture that codecs and networks accept, in pixels."""

DEFAULT_MAX_PIXELS = 64_000_000
"""Pixels of the largest picture that is opened by default."""

MAX_PIXELS_VARIABLE = "SQLINK_MAX_PIXELS"
"""Environment variable that sets the limit."""


_ORIENTATION = 0x0112
"""Tag of the orientation, in EXIF and in TIFF."""

_SIDEWAYS = range(5, 9)
"""Orientations that swap width and height."""

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
)
"""Exceptions that Pillow's readers raise on damaged bytes."""

_limit: ContextVar[int | None] = ContextVar("max_pixels", default=None)


def suffixes() -> list[str]:
    """List the suffixes of the readable formats, in lower case.

    >>> {".png", ".jpeg", ".gif", ".pgm"} <= set(suffixes())
    True
    """
    Image.init()
    return sorted(end for end, name in Image.EXTENSION.items() if name in FORMATS)


@contextmanager
def pixel_limit(pixels: int | None) -> Iterator[None]:
    """Set the limit on pixels within the block; None leaves it unchanged."""
    token = _limit.set(_limit.get() if pixels is None else pixels)
    try:
        yield
    finally:
        _limit.reset(token)


def max_pixels_allowed() -> int:
    """Return the present limit: that of `pixel_limit`, SQLINK_MAX_PIXELS, or DEFAULT_MAX_PIXELS.

    Raises ConfigError if the variable is not a number.
    """
    if (within := _limit.get()) is not None:
        return within
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return DEFAULT_MAX_PIXELS
    try:
        limit = int(float(text))
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise ConfigError(f"{MAX_PIXELS_VARIABLE}={text!r} must be a number of pixels above 0")
    return limit


def check_size(height: int, width: int, what: str, max_pixels: int | None = None) -> None:
    """Raise DataError, naming `what`, if a side is below MIN_SIDE or the area above the limit."""
    if min(height, width) < MIN_SIDE:
        raise DataError(f"{what} is {width}x{height}: at least {MIN_SIDE}x{MIN_SIDE} is needed")
    limit = max_pixels_allowed() if max_pixels is None else max_pixels
    if height * width > limit:
        raise DataError(
            f"{what} is {width}x{height}, {height * width} pixels, over the limit of {limit}: "
            f"raise it with --max-pixels {height * width} or {MAX_PIXELS_VARIABLE}"
        )


def load_picture(path: str | Path, max_pixels: int | None = None) -> Tensor:
    """Read a picture file as float32 [3, H, W] in [0, 1].

    max_pixels: the most pixels to open, SQLINK_MAX_PIXELS or DEFAULT_MAX_PIXELS by default; the
    size is checked before anything is decoded. Raises DataError if the file is missing, not a
    picture, damaged, too small, too large, or of a kind that would be read wrongly.
    """
    path = Path(path)
    picture = _open(path, max_pixels)
    try:
        with picture, _any_size():
            samples = samples_of(picture, path)
            pixels = rgb(ImageOps.exif_transpose(picture), samples, path)
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged or cut short: {_line(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_picture(path: str | Path, max_pixels: int | None = None) -> tuple[int, int]:
    """Return height and width of a picture as `load_picture` gives it, from its header alone.

    Raises DataError as `load_picture` does, except for damage after the header.
    """
    path = Path(path)
    with _open(path, max_pixels) as picture:
        width, height = picture.size
        try:
            samples_of(picture, path)
        except _DAMAGE as error:
            raise DataError(f"{path} is damaged or cut short: {_line(error)}") from error
        try:
            turned = picture.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
        except _DAMAGE:
            turned = False
        # Pillow gives the size of a TIFF as its own tag turns it, other pictures' as it is stored.
        if isinstance(picture, TiffImageFile) and picture.tag_v2.get(_ORIENTATION) in _SIDEWAYS:
            turned = not turned
    return (width, height) if turned else (height, width)


def load_map(path: str | Path, max_pixels: int | None = None, classes: ClassSet = CAMVID) -> Tensor:
    """Read a map as int64 [H, W]: a lossless picture whose values are class ids.

    Raises DataError as `load_picture` does, for a format that may change ids, for values that are
    neither an id of `classes` nor 255, and for a palette that shows the ids in colours of another
    class set.
    """
    path = Path(path)
    ids, palette = load_ids(path, max_pixels)
    if wrong := classes.unknown(ids):
        raise DataError(
            f"{path} is not a map: it holds the {listed(wrong)}, but class ids of {classes.name} "
            f"are 0..{len(classes) - 1}, and {NO_LABEL} for no label"
        )
    check_palette(path, ids, palette, classes)
    return torch.from_numpy(ids)


def load_ids(
    path: Path, max_pixels: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8] | None]:
    """Read the values of a lossless picture, int64 [H, W], and its palette, uint8 [N, 3], if any.

    Raises DataError as `load_picture` does, for a lossy format, and for more than one channel.
    """
    picture = _open(path, max_pixels)
    packed = picture.info.get("compression") == "jpeg"
    if picture.format not in MAP_FORMATS or packed:
        raise DataError(
            f"{path} is not a map: {picture.format}{' of JPEG' if packed else ''} may change class "
            "ids: save the map as PNG"
        )
    if picture.mode not in ("P", "L", "1", "I;16", "I"):
        raise DataError(
            f"{path} is not a map: its mode is {picture.mode}, but class ids need a PNG "
            "with a palette or in grey"
        )
    try:
        with picture, _any_size():
            step = grey_step(picture, path)
            upright = ImageOps.exif_transpose(picture)
            ids = np.asarray(upright).astype(np.int64) // step
            colours = upright.getpalette("RGB") if upright.mode == "P" else None
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged or cut short: {_line(error)}") from error
    return ids, None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)


def check_palette(
    path: Path,
    ids: npt.NDArray[np.int64],
    palette: npt.NDArray[np.uint8] | None,
    classes: ClassSet,
) -> None:
    """Raise DataError if a palette shows ids in other colours than those of `classes`.

    A palette that shows each id in the grey of the same number is accepted with any classes.
    """
    if palette is None:
        return
    used = [k for k in np.unique(ids).tolist() if k < min(len(classes), len(palette))]
    if all((palette[k] == k).all() for k in used):
        return
    for k in used:
        if (shown := tuple(palette[k].tolist())) != (own := classes.palette[k]):
            raise DataError(
                f"{path} shows {k} in the colour {shown}, but {classes.name}'s {classes.names[k]} "
                f"is {own}: it is a map of other classes; if it is not, save it in grey"
            )


def save_picture(image: Tensor, path: str | Path) -> None:
    """Write float32 [3, H, W] in [0, 1] as an 8-bit RGB PNG, completely or not at all."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    write_aside(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()), Path(path))


def save_map(segmentation: Tensor, path: str | Path, classes: ClassSet = CAMVID) -> None:
    """Write int64 [H, W] of class ids, 255 for "no label", as a PNG with a palette."""
    picture = Image.fromarray(segmentation.to(torch.uint8).cpu().numpy())
    picture.putpalette(classes.colours().tobytes())
    write_aside(picture, Path(path))


def write_aside(content: Image.Image | bytes, path: Path) -> None:
    """Write a PNG or bytes into a temporary file in the folder of `path`, then rename it to `path`.

    Raises DataError if the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            if isinstance(content, bytes):
                aside.write_bytes(content)
            else:
                mark = PngInfo()
                mark.add_text("Software", SOFTWARE)
                content.save(aside, format="PNG", pnginfo=mark)
    except OSError as error:
        raise DataError(f"cannot write {path}: {_line(error)}") from error


def is_ours(path: str | Path) -> bool:
    """Say whether a file is a PNG written by this package, which may be overwritten."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == SOFTWARE
    except _DAMAGE:
        return False


def _open(path: Path, max_pixels: int | None) -> Image.Image:
    """Open a file and check its size; nothing is decoded yet."""
    try:
        with _any_size():
            Image.init()
            picture = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a picture") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path} is not a picture that can be read (known: {', '.join(FORMATS)})"
        ) from None
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be opened: {_line(error)}") from error
    width, height = picture.size
    check_size(height, width, str(path), max_pixels)
    return picture


@contextmanager
def _any_size() -> Iterator[None]:
    """Suspend Pillow's own limit on pixels, as `check_size` replaces it."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _line(error: BaseException) -> str:
    """Return the first line of an error, or its name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__
