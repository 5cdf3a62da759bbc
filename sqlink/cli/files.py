"""Files that commands read and write; they are checked before anything is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sqlink.codecs.base import Codec
    from sqlink.data.classes import ClassSet


LONGEST_NAME = 255
"""Longest file name that file systems allow, in bytes."""


def targets_of(
    sources: Sequence[Path],
    folder: Path,
    suffix: str,
    maps: Sequence[Path] | None = None,
    beside: Sequence[str] = (".map.png",),
) -> list[Path]:
    """Return the files to write, one per source, checked before anything is written.

    Raises DataError if two sources have the same name, if a source, one of `maps` or a picture that
    this program did not write would be overwritten, or if a source is missing. beside: suffixes of
    the files written beside a PNG.
    """
    from sqlink.data.pictures import is_ours
    from sqlink.errors import DataError

    targets = [folder / f"{source.stem}{suffix}" for source in sources]
    seen: dict[Path, Path] = {}
    inputs = {source.resolve() for source in (*sources, *(maps or ()))}
    for source, target in zip(sources, targets, strict=True):
        if not os.path.exists(source):
            raise DataError(f"{source} does not exist")
        written = [target]
        if suffix == ".png":
            written += [target.with_name(f"{source.stem}{one}") for one in beside]
        for file in written:
            if len(os.fsencode(file.name)) > LONGEST_NAME:
                raise DataError(
                    f"{source}: {file.name[:40]}... would be a name of over {LONGEST_NAME} bytes: "
                    "rename the picture"
                )
            if file in seen:
                raise DataError(
                    f"{seen[file]} and {source} would both be written to {file}: "
                    "rename one, or run the command once for each"
                )
            seen[file] = source
            if file.resolve() in inputs:
                raise DataError(f"{file} is an input and would be overwritten: name another folder")
            if os.path.isdir(file):
                raise DataError(f"{file} is a folder: name another folder to write to")
            if file.suffix == ".png" and os.path.exists(file) and not is_ours(file):
                raise DataError(
                    f"{file} exists and was not written by this program: "
                    "name another folder, or move it away"
                )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise DataError(f"{folder} is a file: name a folder with -o")
    return targets


def inputs_of(
    pictures: Sequence[Path],
    targets: Sequence[Path],
    maps: Sequence[Path] | None,
    codec: Codec | None,
) -> Iterator[tuple[Path, Path, Tensor, Tensor | None]]:
    """Yield path, target, float32 [1, 3, H, W] and given map, int64 [1, H, W], of each picture.

    Every file is opened and its size checked before the first one is returned.
    """
    from sqlink.data.classes import classes_of
    from sqlink.data.pictures import check_picture, load_picture
    from sqlink.errors import ConfigError
    from sqlink.wording import counted

    if maps and len(maps) != len(pictures):
        raise ConfigError(
            f"{counted(len(maps), 'map')} for {counted(len(pictures), 'picture')}: "
            "give --segmentation once per picture"
        )
    sizes = [check_picture(path) for path in pictures]
    labels = maps_of(maps or [], sizes, classes_of(codec))
    if maps and codec is not None and not codec.carries_map:
        print(f"note: {codec.name} carries no map", file=sys.stderr)
    for n, path in enumerate(pictures):
        yield path, targets[n], load_picture(path)[None], labels[n][None] if labels else None


def labels_of(paths: Sequence[Path] | None, pictures: Sequence[Path]) -> list[Tensor | None]:
    """Return the true labels of each picture, int64 [H, W], or None without any.

    Raises ConfigError if the numbers differ, DataError as `maps_of` does.
    """
    from sqlink.data.classes import CAMVID
    from sqlink.data.pictures import check_picture
    from sqlink.errors import ConfigError
    from sqlink.wording import counted

    if not paths:
        return [None] * len(pictures)
    if len(paths) != len(pictures):
        raise ConfigError(
            f"{counted(len(paths), 'label')} for {counted(len(pictures), 'picture')}: "
            "give --labels once per picture"
        )
    return [*maps_of(paths, [check_picture(path) for path in pictures], CAMVID)]


def maps_of(
    paths: Sequence[Path], sizes: Sequence[tuple[int, int]], classes: ClassSet
) -> list[Tensor]:
    """Load maps int64 [H, W]. Raises DataError if one has another size than its picture."""
    from sqlink.data.pictures import load_map
    from sqlink.errors import DataError

    labels = [load_map(path, classes=classes) for path in paths]
    for path, label, size in zip(paths, labels, sizes, strict=False):
        if tuple(label.shape) != size:
            raise DataError(
                f"{path} is {label.shape[1]}x{label.shape[0]}, its picture {size[1]}x{size[0]}: "
                "a map must have the size of its picture"
            )
    return labels


def read_bytes(path: Path) -> bytes:
    from sqlink.errors import DataError

    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error


def write_received(
    target: Path, image: Tensor, segmentation: Tensor | None, codec: Codec | None
) -> None:
    from sqlink.data.classes import classes_of
    from sqlink.data.pictures import save_map, save_picture

    save_picture(image, target)
    if segmentation is not None:
        target = target.with_name(f"{target.stem}.map.png")
        save_map(segmentation, target, classes=classes_of(codec))
