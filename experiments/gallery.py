"""A page of pictures: a codec at low rates beside the baselines at the very same bytes.

    pictures (every n-th) ─ codec at each rate ─> bytes ─ each baseline in as many ─> tiles
    ─> FOLDER/NAME.png, a sheet a picture; FOLDER/page.RATE.png, all of them; FOLDER/index.html

A baseline that cannot code so low is shown at its lowest, framed, with its true size. Pictures are
chosen by number. Tiles hold every pixel as it was decoded; nothing is scaled on the sheets.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import BeforeValidator, Field
from torch import Tensor

from experiments.sweep.schema import Choice, Data, Named, as_list, as_named
from sqlink.codecs import load_codec, takes_option
from sqlink.codecs.base import Codec, Decoded, Rate, Received, Stream, Unreachable
from sqlink.data import open_dataset
from sqlink.data.classes import CAMVID
from sqlink.data.pictures import write_aside
from sqlink.errors import ConfigError, DataError
from sqlink.runtime.device import select_device
from sqlink.runtime.precision import full_precision
from sqlink.segmentation import load_segmenter
from sqlink.settings import Section, find_settings, load_settings

INK, GREY, PAPER, AMBER = "#1a1a1a", "#6b6b6b", "#ffffff", "#d98200"
GAP, LINE, HEAD, EDGE = 12, 26, 44, 4
"""Pixels: between tiles, of a line of text, of the title, of the frame of a tile out of bounds."""
PAGE_WIDTH = 1800
"""Pixels of a page of all pictures, whose tiles are scaled to it."""

Pixels = npt.NDArray[np.uint8]


class Gallery(Section):
    """What is shown.

    every: each n-th picture of the data set. codec: whose rates are asked for. baselines: shown in
    the bytes that it took. segmenter: what makes the map that is sent.
    """

    data: Annotated[Data, BeforeValidator(as_named)]
    every: Annotated[int, Field(gt=0)] = 1
    codec: Named = Choice(name="sqgan")
    baselines: Annotated[list[Named], BeforeValidator(as_list)] = Field(
        default=[Choice(name="bpg"), Choice(name="jpeg2000")]
    )
    bpp: Annotated[
        list[Annotated[float, Field(gt=0)]], BeforeValidator(as_list), Field(min_length=1)
    ] = Field(default=[0.01, 0.02, 0.04])
    segmenter: Named = Choice(name="tx")
    device: str = "cpu"
    output: str = "results/gallery"

    def at(self, bpp: Sequence[float]) -> Gallery:
        """Return the same gallery at other rates. Raises ConfigError for a rate that is not
        valid.
        """
        for value in bpp:
            Rate(bpp=value)
        return Gallery.model_validate({**dict(self), "bpp": list(bpp)})


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet and the text under it. beyond: whether it needed more bytes."""

    pixels: Pixels
    title: str
    text: str
    beyond: bool = False


def load_gallery(path: str | Path) -> Gallery:
    """Read and validate a gallery's YAML. Raises ConfigError, one line."""
    return load_settings(find_settings(path, "experiments.configs"), Gallery)


def of_folder(folder: Path) -> Gallery:
    """Make a gallery of every picture in a folder, at the default rates."""
    return Gallery(data=Data(name="folder", options={"root": str(folder)}))


def draw_gallery(gallery: Gallery, output: str | Path | None = None) -> list[Path]:
    """Draw sheets and pages into the folder, and return what was written, the page first.

    Raises SQLinkError, one line, for what a user can mend.
    """
    folder = Path(output or gallery.output)
    device = select_device(gallery.device, "device")
    data = open_dataset(gallery.data.name, **gallery.data.options)
    numbers = list(range(0, len(data), gallery.every))[: gallery.data.limit]
    if not numbers:
        raise DataError(f"the data set '{gallery.data.name}' is empty: there is nothing to show")
    codec = _codec(gallery.codec, device)
    baselines = [_codec(choice, device) for choice in gallery.baselines]
    segmenter = load_segmenter(
        gallery.segmenter.name, **{"device": device, **gallery.segmenter.options}
    )
    written: list[Path] = []
    pages: dict[float, list[list[Tile]]] = {bpp: [] for bpp in gallery.bpp}
    with torch.inference_mode(), full_precision():
        for number in numbers:
            sample = data[number]
            image = sample.image[None].to(device)
            sent = segmenter.segment(image)
            rows = [
                _row(image, sent, bpp, codec, baselines, first=n == 0)
                for n, bpp in enumerate(gallery.bpp)
            ]
            original = Tile(_pixels(sample.image), sample.name, "")
            for bpp, row in zip(gallery.bpp, rows, strict=True):
                pages[bpp].append([original, *row[1:]])
            path = folder / f"{sample.name}.png"
            write_aside(sheet(f"{sample.name}  (number {number})", rows), path)
            written.append(path)
    for bpp, shown in reversed(pages.items()):
        path = folder / f"page.bpp={bpp:g}.png"
        scale = min(1.0, PAGE_WIDTH / (len(shown[0]) * shown[0][0].pixels.shape[1]))
        write_aside(sheet(f"{codec.name} at {bpp:g} bit/pixel", shown, scale), path)
        written.insert(0, path)
    index = folder / "index.html"
    write_aside(_page(gallery, codec, baselines, written, len(numbers)).encode(), index)
    return [index, *written]


def _row(
    image: Tensor,
    sent: Tensor,
    bpp: float,
    codec: Codec,
    baselines: Sequence[Codec],
    first: bool,
) -> list[Tile]:
    """Return the tiles of one picture at one rate: the original or the map received, then the
    codecs.
    """
    height, width = image.shape[2:]
    (answer,) = codec.encode(image, Rate(bpp=bpp), sent)
    if isinstance(answer, Unreachable):
        raise ConfigError(f"{answer}: ask for more than {bpp:g} bpp")
    decoded = _decode(codec, answer)
    if first or decoded.segmentation is None:
        left = Tile(_pixels(image[0]), "original", f"{width}x{height}")
    else:
        left = Tile(_colours(decoded.segmentation[0]), f"map received at {bpp:g} bpp", "")
    tiles = [left, Tile(_pixels(decoded.images[0]), codec.name, _size(answer))]
    for baseline in baselines:
        (other,) = baseline.encode(image, Rate(bytes=answer.size), sent)
        beyond = isinstance(other, Unreachable)
        if isinstance(other, Unreachable):
            (other,) = baseline.encode(image, Rate(bytes=other.lowest_bytes), sent)
        if isinstance(other, Unreachable):
            raise DataError(f"{other}: its lowest rate cannot be reached")
        text = _size(other)
        if beyond:
            text = f"its lowest: {text}, {other.size / answer.size:.1f} times as many"
        tiles.append(Tile(_pixels(_decode(baseline, other).images[0]), baseline.name, text, beyond))
    return tiles


def _decode(codec: Codec, stream: Stream) -> Decoded:
    return codec.decode([Received.whole(stream)])


def sheet(title: str, rows: Sequence[Sequence[Tile]], scale: float = 1.0) -> Image.Image:
    """Draw tiles in rows, each with its title and text under it; scale: of the tiles' pictures."""
    heights = [round(max(t.pixels.shape[0] for t in row) * scale) for row in rows]
    columns = max(len(row) for row in rows)
    width = round(max(t.pixels.shape[1] for row in rows for t in row) * scale)
    size = (
        columns * (width + GAP) + GAP,
        HEAD + sum(height + LINE + GAP for height in heights) + GAP,
    )
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    bold, plain = (_font(name, 15) for name in ("DejaVuSans-Bold", "DejaVuSans"))
    pen.text((GAP, 12), title, INK, _font("DejaVuSans-Bold", 20))
    y = HEAD
    for row, height in zip(rows, heights, strict=True):
        for n, tile in enumerate(row):
            x = GAP + n * (width + GAP)
            picture = Image.fromarray(tile.pixels)
            if scale != 1:
                fitted = tuple(max(1, round(side * scale)) for side in picture.size)
                picture = picture.resize((fitted[0], fitted[1]), Image.Resampling.LANCZOS)
            page.paste(picture, (x, y))
            if tile.beyond:
                corner = (x + picture.width - 1, y + picture.height - 1)
                pen.rectangle(((x, y), corner), outline=AMBER, width=EDGE)
            under = y + height + 5
            pen.text((x, under), tile.title, INK, bold)
            start = x + pen.textlength(tile.title, bold) + 10
            room = x + width - start
            pen.text(
                (start, under),
                _fitted(pen, tile.text, plain, room),
                AMBER if tile.beyond else GREY,
                plain,
            )
        y += height + LINE + GAP
    return page


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """Return as many of the comma-separated parts of a text as fit."""
    parts = text.split(", ")
    while len(parts) > 1 and pen.textlength(", ".join(parts), font) > room:
        parts.pop(-1 if len(parts) < 3 else 1)
    return ", ".join(parts)


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a font that comes with matplotlib."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / f"{name}.ttf"), size)


def _codec(choice: Choice, device: torch.device) -> Codec:
    placed = {"device": device} if takes_option(choice.name, "device") else {}
    return load_codec(choice.name, **{**placed, **choice.options})


def _pixels(image: Tensor) -> Pixels:
    """Convert float32 [3, H, W] to uint8 [H, W, 3]."""
    found: Pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return found


def _colours(labels: Tensor) -> Pixels:
    return CAMVID.colourise(labels.cpu().numpy())


def _size(stream: Stream) -> str:
    return f"{stream.bpp:.4f} bpp, {stream.size} bytes"


def _page(
    gallery: Gallery, codec: Codec, baselines: Sequence[Codec], files: Sequence[Path], count: int
) -> str:
    """Return the HTML that shows them all."""
    names = ", ".join(baseline.name for baseline in baselines)
    chosen = "all of them" if gallery.every == 1 else f"one in {gallery.every}, by number"
    said = html.escape(
        f"{count} pictures of '{gallery.data.name}', {chosen}. In each row {codec.name}, "
        f"then {names} in the bytes that {codec.name} took; a tile framed in amber is a codec at "
        "its lowest, which needs more.",
        quote=False,
    )
    shown = "\n".join(
        f'<figure><a href="{name}"><img loading="lazy" src="{name}" alt="{name}"></a></figure>'
        for name in (html.escape(path.name, quote=True) for path in files)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{codec.name} beside {names}</title>
<meta name="viewport" content="width=device-width"><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: {INK}; margin: 2rem auto; max-width: 1960px;
padding: 0 1rem }}
figure {{ margin: 0 0 2rem }} img {{ width: 100%; height: auto }} p {{ max-width: 60rem }}
</style></head><body>
<h1>{html.escape(codec.name)} beside {html.escape(names)} at the same bytes</h1>
<p>{said}</p>
{shown}
</body></html>
"""
