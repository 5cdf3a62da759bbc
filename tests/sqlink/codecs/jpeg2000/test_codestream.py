"""Packets of a codestream end where OpenJPEG says they end."""

from __future__ import annotations

import io
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sqlink.codecs.jpeg2000.codestream import (
    cut_to_packets,
    decode_codestream,
    packet_ends,
    read_header,
    strip_comments,
)
from sqlink.data.streets import Streets
from sqlink.errors import DataError

STREET = Streets(seed=3, count=1, height=90, width=120)[0].image


def picture(width: int, height: int) -> Image.Image:
    pixels = torch.nn.functional.interpolate(STREET[None], (height, width), mode="bilinear")[0]
    return Image.fromarray((pixels * 255).to(torch.uint8).permute(1, 2, 0).numpy())


def codestream(
    width: int,
    height: int,
    size: int,
    layers: int = 1,
    progression: str = "LRCP",
    plt: bool = False,
) -> bytes:
    file = io.BytesIO()
    picture(width, height).save(
        file,
        format="JPEG2000",
        quality_mode="rates",
        quality_layers=[3 * width * height * layers / (size * (n + 1)) for n in range(layers)],
        irreversible=True,
        mct=1,
        no_jp2=True,
        progression=progression,
        num_resolutions=min(6, min(width, height).bit_length()),
        plt=plt,
    )
    return file.getvalue()


def lengths_by_openjpeg(data: bytes) -> list[int]:
    """Packet lengths of a PLT segment (T.800 A.7.3): seven bits a byte, the top one says more."""
    at = data.index(b"\xff\x58")
    lengths, value = [], 0
    for byte in data[at + 5 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]:
        value = value << 7 | (byte & 127)
        if not byte & 128:
            lengths.append(value)
            value = 0
    return lengths


@pytest.mark.parametrize("shape", [(120, 90), (16, 16), (37, 91), (330, 200), (130, 64)])
def test_packet_ends_are_those_of_the_packet_length_marker(shape: tuple[int, int]) -> None:
    for layers, progression, size in product((1, 4), ("LRCP", "RLCP"), (200, 2000, 20000)):
        data = strip_comments(codestream(*shape, size, layers, progression))
        header = read_header(data)
        lengths = lengths_by_openjpeg(codestream(*shape, size, layers, progression, plt=True))
        assert packet_ends(data, header) == list(header.body + np.cumsum(lengths))


def test_stripping_takes_the_comment_and_nothing_else() -> None:
    signed = codestream(120, 90, 900)
    bare = strip_comments(signed)
    assert len(signed) - len(bare) == 39
    assert b"OpenJPEG" in signed
    assert b"OpenJPEG" not in bare
    assert np.array_equal(decode_codestream(signed), decode_codestream(bare))


def test_every_prefix_decodes_once_a_packet_is_there_and_gets_better() -> None:
    data = strip_comments(codestream(120, 90, 3000))
    header = read_header(data)
    ends = packet_ends(data, header)
    original = np.asarray(picture(120, 90)).astype(float)
    errors = []
    for size in range(header.body, len(data), 97):
        cut = cut_to_packets(data[:size], header)
        assert (cut is None) == (size < ends[0])
        if cut is not None:
            errors.append(((decode_codestream(cut) - original) ** 2).mean())
    assert errors[-1] < errors[0] / 4
    assert all(later <= before * 1.1 for before, later in pairwise(errors))


def test_all_packets_kept_is_the_same_picture() -> None:
    data = strip_comments(codestream(120, 90, 3000))
    cut = cut_to_packets(data[:-2], read_header(data))
    assert cut == data


def test_what_is_no_codestream_is_refused_in_one_line() -> None:
    data = strip_comments(codestream(64, 64, 500))
    for bad in (b"", b"\xff\x4f", b"no picture at all", data[:60], data[:100]):
        with pytest.raises(DataError) as caught:
            read_header(bad)
        assert "\n" not in str(caught.value)


WHOLE = strip_comments(codestream(64, 64, 500))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_raise_nothing_but_data_errors(draws: st.DataObject) -> None:
    data = bytearray(WHOLE)
    for _ in range(draws.draw(st.integers(1, 8))):
        data[draws.draw(st.integers(0, len(data) - 1))] = draws.draw(st.integers(0, 255))
    whole = bytes(data[: draws.draw(st.integers(0, len(data)))])
    try:
        header = read_header(whole)
    except DataError:
        return
    if max(header.width, header.height) <= 64 and header.components <= 3:
        ends = packet_ends(whole, header)
        assert ends == sorted(ends)
        assert not ends or ends[-1] <= len(whole)
