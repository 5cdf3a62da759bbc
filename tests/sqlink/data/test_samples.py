"""Every kind of file that opens shows what its own specification says, or is refused in one line.

The files are written here, byte by byte; what they show is worked out from TIFF 6.0, the PNG
specification and ISO/IEC 15444-1, and for sub-sampled JPEG2000 by another decoder, libavcodec.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import OPEN_INFO

from sqlink.data.pictures import check_picture, load_map, load_picture
from sqlink.errors import DataError

HEIGHT, WIDTH = 19, 23
DRAWS = np.random.default_rng(11)
RAW, DEFLATE = 1, 8
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
UNSIGNED, SIGNED, FLOAT = 1, 2, 3

Samples = NDArray[np.integer] | NDArray[np.floating]
Shown = NDArray[np.floating]


def packed(row: Samples, bits: int, order: str) -> bytes:
    """One row of samples as a file holds it, most significant bit first, up to a whole byte."""
    flat = row.reshape(-1)
    if flat.dtype.kind == "f":
        return flat.astype(f"{order}f4").tobytes()
    if bits in (8, 16, 32):
        return flat.astype(f"{order}u{bits // 8}").tobytes()
    each = (flat[:, None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.astype(np.uint8).reshape(-1)).tobytes()


def tiff(
    samples: Samples,
    bits: int,
    photometric: int,
    sample_format: int = UNSIGNED,
    order: str = "<",
    compression: int = RAW,
    **tags: Sequence[int],
) -> bytes:
    """A TIFF of one strip of samples [H, W] or [H, W, C]; further tags as t338=(2,)."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    data = b"".join(packed(row, bits, order) for row in samples)
    data = zlib.compress(data) if compression == DEFLATE else data
    entries: dict[int, tuple[str, Sequence[int]]] = {
        256: ("H", [samples.shape[1]]),
        257: ("H", [samples.shape[0]]),
        258: ("H", [bits] * channels),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        273: ("I", [0]),
        277: ("H", [channels]),
        278: ("H", [samples.shape[0]]),
        279: ("I", [len(data)]),
        339: ("H", [sample_format] * channels),
    } | {int(name[1:]): ("H", values) for name, values in tags.items()}
    after = 8 + 2 + 12 * len(entries) + 4
    sizes = [struct.calcsize(kind) * len(values) for kind, values in entries.values()]
    entries[273] = ("I", [after + sum(size for size in sizes if size > 4)])
    directory = far = b""
    for tag, (kind, values) in sorted(entries.items()):
        value = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(value) > 4:
            where, far = after + len(far), far + value
            value = struct.pack(f"{order}I", where)
        directory += struct.pack(f"{order}HHI", tag, 3 if kind == "H" else 4, len(values))
        directory += value.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    return head + directory + bytes(4) + far + data


def shown_by_tiff(
    samples: Samples, bits: int, photometric: int, extra: tuple[int, ...], colours: Sequence[int]
) -> Shown:
    """What TIFF 6.0 says a TIFF shows, [H, W, 3], its opacity over white."""
    values: Shown = samples / (1 if samples.dtype.kind == "f" else 2**bits - 1)
    planes = values[..., None] if values.ndim == 2 else values
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        grey = planes[..., :1] if photometric == BLACK_IS_ZERO else 1 - planes[..., :1]
        seen, rest = grey.repeat(3, 2), planes[..., 1:]
    elif photometric == PALETTE:
        table = np.array(colours).reshape(3, -1) / 65535
        index = samples if samples.ndim == 2 else samples[..., 0]
        seen, rest = np.moveaxis(table[:, index], 0, 2), planes[..., 1:]
    elif photometric == CMYK:
        return (1 - planes[..., :3]) * (1 - planes[..., 3:4])
    else:
        seen, rest = planes[..., :3], planes[..., 3:]
    if not rest.shape[2] or extra[:1] == (0,):
        return seen
    opacity = rest[..., :1]
    return seen + 1 - opacity if extra[:1] == (1,) else seen * opacity + 1 - opacity


def read(path: Path, content: bytes) -> Shown:
    path.write_bytes(content)
    assert check_picture(path) == load_picture(path).shape[1:]
    return load_picture(path).permute(1, 2, 0).numpy()


KINDS = [key for key in OPEN_INFO if key[3] == 1 and key[1] in (0, 1, 2, 3, 5)]


@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_every_kind_of_tiff_that_pillow_opens(
    tmp_path: Path,
    kind: tuple[bytes, int, tuple[int], int, tuple[int, ...], tuple[int, ...]],
    compression: int,
) -> None:
    prefix, photometric, (sample_format,), _, depths, extra = kind
    bits, order = depths[0], "<" if prefix == b"II" else ">"
    shape = (HEIGHT, WIDTH) if len(depths) == 1 else (HEIGHT, WIDTH, len(depths))
    samples: Samples = DRAWS.integers(0, 2**bits, shape)
    if sample_format == FLOAT:
        samples = DRAWS.random(shape, dtype=np.float32)
    if extra[:1] == (1,):  # colours times opacity
        count = len(depths) - len(extra)
        opacity = samples[..., count : count + 1]
        samples[..., :count] = samples[..., :count] * opacity // (2**bits - 1)
    colours = [257 * int(c) for c in DRAWS.integers(0, 256, 3 << bits)] if photometric == 3 else []
    tags = ({"t338": extra} if extra else {}) | ({"t320": colours} if colours else {})
    content = tiff(samples, bits, photometric, sample_format, order, compression, **tags)
    big_floats = sample_format == FLOAT and order == ">" and compression == DEFLATE
    if sample_format == SIGNED or big_floats:
        with pytest.raises(DataError, match=r"signed samples|big-endian samples") as caught:
            read(tmp_path / "a.tif", content)
        assert "\n" not in str(caught.value)
        return
    expected = shown_by_tiff(samples, bits, photometric, extra, colours)
    assert read(tmp_path / "a.tif", content) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_on_its_side_takes_a_map_of_its_upright_size(
    tmp_path: Path, orientation: int
) -> None:
    samples = DRAWS.integers(0, 256, (HEIGHT, WIDTH, 3))
    seen = read(tmp_path / "a.tif", tiff(samples, 8, RGB, t274=[orientation]))
    upright = samples if orientation < 5 else samples.transpose(1, 0, 2)
    assert seen.shape == upright.shape
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned |= {5: upright, 6: upright[:, ::-1], 7: upright[::-1, ::-1], 8: upright[::-1]}
    assert seen * 255 == pytest.approx(turned[orientation], abs=0.01)


def test_a_tiff_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    colours = DRAWS.integers(0, 256, (HEIGHT, WIDTH, 3))
    grey = DRAWS.integers(0, 256, (HEIGHT, WIDTH))
    scaled = DRAWS.random((HEIGHT, WIDTH), dtype=np.float32) * 255
    table = [int(value) for value in DRAWS.integers(0, 256, 768)]
    for content, says in (
        (tiff(colours, 8, YCBCR), "sub-sampled"),
        (tiff(colours, 8, YCBCR, t530=[2, 2]), "sub-sampled"),
        (tiff(colours * 257, 16, RGB, t284=[2]), "separate planes"),
        (tiff(grey, 8, BLACK_IS_ZERO, t254=[1]), "a preview"),
        (tiff(grey, 8, PALETTE, t320=table), "colour map of 8 bits"),
        (tiff(scaled, 32, BLACK_IS_ZERO, FLOAT), "scale them to 0..1"),
    ):
        with pytest.raises(DataError, match=says) as caught:
            read(tmp_path / "a.tif", content)
        assert "\n" not in str(caught.value)
    assert read(tmp_path / "a.tif", tiff(colours, 8, YCBCR, t530=[1, 1])).shape == colours.shape


def png(samples: Samples, bits: int, colour_type: int, **chunks: bytes) -> bytes:
    lines = b"".join(b"\0" + packed(row, bits, ">") for row in samples)
    high, wide = samples.shape[:2]
    parts = {"IHDR": struct.pack(">2I5B", wide, high, bits, colour_type, 0, 0, 0)} | chunks
    parts |= {"IDAT": zlib.compress(lines), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name.encode()
        + data
        + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in parts.items()
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_lies_over_white_at_every_depth(tmp_path: Path, bits: int) -> None:
    samples = DRAWS.integers(0, 2**bits, (HEIGHT, WIDTH))
    samples[:4] = 0
    key = 0 if bits == 1 else 2 ** (bits - 1) - 1
    samples[4:8] = key
    seen = read(tmp_path / "a.png", png(samples, bits, 0, tRNS=struct.pack(">H", key)))
    grey = np.where(samples == key, 1, samples / (2**bits - 1))
    assert seen == pytest.approx(grey[..., None].repeat(3, 2), abs=1e-6)


def test_a_transparent_colour_lies_over_white_or_is_refused(tmp_path: Path) -> None:
    samples = DRAWS.integers(0, 256, (HEIGHT, WIDTH, 3))
    samples[4:8] = (9, 8, 7)
    key = struct.pack(">3H", 9, 8, 7)
    expected = np.where((samples == (9, 8, 7)).all(2)[..., None], 1, samples / 255)
    seen = read(tmp_path / "a.png", png(samples, 8, 2, tRNS=key))
    assert seen == pytest.approx(expected, abs=1e-6)
    with pytest.raises(DataError, match="16 bits a sample and one transparent colour"):
        read(tmp_path / "a.png", png(samples, 16, 2, tRNS=key))


def tga(depth: int, descriptor: int, pixels: bytes) -> bytes:
    head = struct.pack("<3B2HB4H2B", 0, 0, 2, 0, 0, 0, 0, 0, WIDTH, HEIGHT, depth, descriptor)
    return head + pixels


def test_a_tga_has_opacity_only_where_it_says_so(tmp_path: Path) -> None:
    samples = DRAWS.integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
    pixels, values = samples[..., [2, 1, 0, 3]].tobytes(), samples / 255
    opacity = values[..., 3:]
    seen = read(tmp_path / "a.tga", tga(32, 0x20, pixels))
    assert seen == pytest.approx(values[..., :3], abs=1e-6)
    seen = read(tmp_path / "a.tga", tga(32, 0x28, pixels))
    assert seen == pytest.approx(values[..., :3] * opacity + 1 - opacity, abs=0.005)
    short = DRAWS.integers(0, 1 << 16, (HEIGHT, WIDTH)).astype("<u2")
    fives = np.stack([(short >> 10) & 31, (short >> 5) & 31, short & 31], 2) / 31
    assert read(tmp_path / "a.tga", tga(16, 0x20, short.tobytes())) == pytest.approx(
        fives, abs=0.01
    )
    with pytest.raises(DataError, match="1 bit of opacity"):
        read(tmp_path / "a.tga", tga(16, 0x21, short.tobytes()))


Boxes = dict[bytes, bytes]


def boxes(content: bytes) -> Boxes:
    found, at = Boxes(), 0
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        length = length or len(content) - at
        found[kind] = content[at + 8 : at + length]
        at += length
    return found


def joined(parts: Boxes) -> bytes:
    return b"".join(struct.pack(">I4s", 8 + len(v), k) + v for k, v in parts.items())


def jp2(samples: NDArray[np.uint8], change: Callable[[Boxes], Boxes] = lambda h: h) -> bytes:
    """A lossless JP2 with another header."""
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG2000")
    parts = boxes(file.getvalue())
    return joined(parts | {b"jp2h": joined(change(boxes(parts[b"jp2h"])))})


def channels(*each: tuple[int, int, int]) -> Boxes:
    return {b"cdef": struct.pack(">H", len(each)) + b"".join(struct.pack(">3H", *c) for c in each)}


def space(number: int) -> Boxes:
    return {b"colr": struct.pack(">3BI", 1, 0, 0, number)}


def test_channels_of_a_jpeg2000_are_as_its_header_defines_them(tmp_path: Path) -> None:
    four = DRAWS.integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)
    three, one = four[..., :3].copy(), four[..., 0] % 16
    values, opacity = four[..., :3] / 255, four[..., 3:] / 255
    rgb = [(0, 0, 1), (1, 0, 2), (2, 0, 3)]
    seen = read(tmp_path / "a.jp2", jp2(three, lambda h: h | channels(*rgb)))
    assert seen == pytest.approx(values, abs=1e-6)
    seen = read(tmp_path / "a.jp2", jp2(four, lambda h: h | channels(*rgb, (3, 1, 0))))
    assert seen == pytest.approx(values * opacity + 1 - opacity, abs=0.005)
    table = DRAWS.permutation(256)[:48].astype(np.uint8)
    palette = {b"pclr": struct.pack(">HB3B", 16, 3, 7, 7, 7) + table.tobytes()}
    straight = {b"cmap": b"".join(struct.pack(">HBB", 0, 1, k) for k in range(3))}
    seen = read(tmp_path / "a.jp2", jp2(one, lambda h: h | space(16) | palette | straight))
    assert seen == pytest.approx(table.reshape(16, 3)[one] / 255, abs=1e-6)

    blue_first = channels((0, 0, 3), (1, 0, 2), (2, 0, 1))
    swapped = {b"cmap": b"".join(struct.pack(">HBB", 0, 1, k) for k in (2, 1, 0))}
    double = {b"pclr": palette[b"pclr"][:6] + table[:3].tobytes() * 16}
    for content, says in (
        (jp2(three, lambda h: h | blue_first), "channel definition"),
        (jp2(four, lambda h: h | channels(*rgb, (3, 2, 0))), "channel definition"),
        (jp2(four, lambda h: h | channels(*rgb, (3, 65535, 65535))), "channel definition"),
        (jp2(four, lambda h: {k: v for k, v in h.items() if k != b"cdef"}), "4 channels"),
        (jp2(three, lambda h: h | space(14)), "colour space"),
        (jp2(three, lambda h: h | space(21)), "colour space"),
        (jp2(one, lambda h: h | space(0)), "colour space"),
        (jp2(one, lambda h: h | space(16) | palette | swapped), "palette"),
        (jp2(one, lambda h: h | space(16) | double | straight), "palette"),
    ):
        with pytest.raises(DataError, match=f"the JPEG2000 has.*{says}") as caught:
            read(tmp_path / "a.jp2", content)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["yuv444p", "yuv422p", "yuv420p"])
@pytest.mark.parametrize("size", [(32, 32), (33, 32), (32, 33), (33, 35)])
def test_sub_sampled_colour_is_as_another_decoder_has_it_or_refused(
    tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    av = pytest.importorskip("av")
    wide, high = size
    frame = av.VideoFrame(wide, high, name)
    for number, plane in enumerate(frame.planes):
        tones = np.full((plane.height, plane.line_size), 128, np.uint8)
        if number:
            tones[:] = np.linspace(20, 220, plane.line_size)[None]
        plane.update(tones.tobytes())
    writer = av.CodecContext.create("jpeg2000", "w")
    writer.width, writer.height, writer.pix_fmt, writer.time_base = wide, high, name, Fraction(1)
    writer.options = {"format": "jp2", "pred": "dwt53"}
    content = b"".join(bytes(part) for part in (*writer.encode(frame), *writer.encode(None)))
    reader = av.CodecContext.create("jpeg2000", "r")
    (decoded,) = [*reader.decode(av.Packet(content)), *reader.decode(None)]
    colours = {"src_colorspace": "ITU601", "src_color_range": 2, "dst_color_range": 2}
    expected = decoded.reformat(format="rgb24", **colours).to_ndarray() / 255
    half = (name != "yuv444p" and wide % 2) or (name == "yuv420p" and high % 2)
    if half:
        with pytest.raises(DataError, match="last column or row is half a sample"):
            read(tmp_path / "a.jp2", content)
    else:
        assert np.abs(read(tmp_path / "a.jp2", content) - expected).mean() < 0.005


def test_maps_are_lossless_and_of_one_channel(tmp_path: Path) -> None:
    ids = np.full((HEIGHT, WIDTH), 3, np.uint8)
    for name in ("a.png", "a.bmp", "a.tif"):
        Image.fromarray(ids).save(tmp_path / name)
        assert load_map(tmp_path / name).unique().tolist() == [3], name
    Image.fromarray(ids).save(tmp_path / "packed.tif", compression="jpeg")
    for name in ("a.jpg", "a.webp", "a.avif", "a.jp2", "a.gif", "packed.tif"):
        if name.startswith("a"):
            Image.fromarray(ids).save(tmp_path / name)
        with pytest.raises(DataError, match=r"save the map as PNG|its mode is") as caught:
            load_map(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_class_ids_of_few_bits_are_as_the_file_holds_them(tmp_path: Path, bits: int) -> None:
    ids = DRAWS.integers(0, min(2**bits, 11), (HEIGHT, WIDTH))
    (tmp_path / "a.png").write_bytes(png(ids, bits, 0))
    assert np.array_equal(load_map(tmp_path / "a.png").numpy(), ids)
    (tmp_path / "a.tif").write_bytes(tiff(ids, bits, BLACK_IS_ZERO))
    assert np.array_equal(load_map(tmp_path / "a.tif").numpy(), ids)


def test_a_map_in_colours_of_other_classes_is_refused(tmp_path: Path) -> None:
    """Ids 0 to 10 of Cityscapes are ids of CamVid, too, and mean something else."""
    from sqlink.data.classes import CAMVID, CITYSCAPES

    picture = Image.fromarray((np.arange(HEIGHT * WIDTH) % 11).reshape(HEIGHT, WIDTH).astype("u1"))
    for classes in (CAMVID, CITYSCAPES):
        picture.putpalette(classes.colours().tobytes())
        picture.save(tmp_path / f"{classes.name}.png")
        assert len(load_map(tmp_path / f"{classes.name}.png", classes=classes).unique()) == 11
    with pytest.raises(DataError, match=r"shows 0 in the colour \(128, 64, 128\).*sky is"):
        load_map(tmp_path / "cityscapes.png")
    picture.putpalette([k // 3 for k in range(768)])
    picture.save(tmp_path / "greys.png")
    assert len(load_map(tmp_path / "greys.png").unique()) == 11
