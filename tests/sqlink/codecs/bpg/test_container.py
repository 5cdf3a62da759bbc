"""The BPG file and the HEVC syntax inside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlink.codecs.bpg.bits import BitReader, BitWriter
from sqlink.codecs.bpg.container import BPGFile, read_ue7, ue7
from sqlink.codecs.bpg.hevc import PCM, Tools, escape, unescape
from sqlink.errors import DataError

TOOLS = Tools(0, 3, 0, 3, 2, 1, None, 1)
FILE = BPGFile(475, 357, 1, TOOLS, bytes.fromhex("4401c17183120000012601af09cc"))


@given(st.integers(0, 2**32 - 1))
def test_numbers_of_7_bits_come_back(value: int) -> None:
    assert read_ue7(ue7(value) + b"\xff", 0) == (value, len(ue7(value)))


@pytest.mark.parametrize("data", ["80", "8001", "81", "", "ffffffffff7f", "9080808000"])
def test_numbers_of_7_bits_that_are_illegal_cut_or_too_large_are_refused(data: str) -> None:
    with pytest.raises(DataError):
        read_ue7(bytes.fromhex(data), 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**16 - 1)), max_size=20))
def test_bits_come_back(numbers: list[tuple[bool, int]]) -> None:
    writer = BitWriter()
    for golomb, value in numbers:
        writer.ue(value) if golomb else writer.u(16, value)
    reader = BitReader(writer.to_bytes())
    assert [reader.ue() if golomb else reader.u(16) for golomb, _ in numbers] == [
        value for _, value in numbers
    ]


def test_exp_golomb_codes_are_the_standards() -> None:
    """H.265, table 9-2."""
    codes = ["1", "010", "011", "00100", "00101", "00110", "00111", "0001000"]
    for value, code in enumerate(codes):
        writer = BitWriter()
        writer.ue(value)
        padded = code.ljust(8, "0")
        assert writer.to_bytes() == int(padded, 2).to_bytes(1, "big")


@given(st.binary(max_size=60).map(lambda data: bytes(b & 3 for b in data) + b"\x80"))
def test_escaped_payload_holds_no_start_code_and_comes_back(payload: bytes) -> None:
    escaped = escape(payload)
    assert not any(bytes((0, 0, n)) in escaped for n in range(3))
    assert unescape(escaped) == payload


@pytest.mark.parametrize(
    "tools",
    [
        TOOLS,
        replace(TOOLS, pcm=PCM(7, 7, 0, 2, 1)),
        replace(TOOLS, range_extension=0b101010101),
        replace(TOOLS, sao=0, log2_min_cb_minus3=1, log2_diff_cb=0),
    ],
)
def test_tools_come_back(tools: Tools) -> None:
    assert Tools.from_bytes(tools.to_bytes()) == tools


def test_tools_of_the_reference_encoder_are_read() -> None:
    """The three bytes that libbpg 0.9.8 writes: 64x64 tree blocks, 8x8 the smallest, SAO."""
    assert Tools.from_bytes(bytes.fromhex("924740")) == TOOLS
    assert TOOLS.to_bytes() == bytes.fromhex("924740")


@given(st.integers(1, 20000), st.integers(1, 3000), st.sampled_from([0, 1, 2, 3]))
def test_a_file_comes_back(width: int, height: int, pixel_format: int) -> None:
    file = replace(FILE, width=width, height=height, pixel_format=pixel_format)
    assert BPGFile.from_bytes(file.to_bytes()) == file


def test_data_of_unstated_length_go_to_the_end_and_an_extension_is_skipped() -> None:
    """What libbpg writes: length 0; with an extension, such as EXIF."""
    head = bytes.fromhex("425047fb 20 08 835b 8265 00 03 aabbcc 03 924740")
    assert BPGFile.from_bytes(head + FILE.units) == FILE


def test_a_file_cut_short_anywhere_is_refused() -> None:
    data = FILE.to_bytes()
    for length in range(len(data)):
        with pytest.raises(DataError) as error:
            BPGFile.from_bytes(data[:length])
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("424d0000 20 00 10 10 00 01 92 00", "not a BPG file"),
        ("425047fb a0 00 10 10 00 03 924740 00", r"4:2:2 \(MPEG2 siting\) with 8 bits"),
        ("425047fb c0 00 10 10 00 03 924740 00", "unknown format"),
        ("425047fb 22 00 10 10 00 03 924740 00", "10 bits"),
        ("425047fb 30 00 10 10 00 03 924740 00", "alpha"),
        ("425047fb 20 04 10 10 00 03 924740 00", "alpha"),
        ("425047fb 20 01 10 10 00 03 924740 00", "animated"),
        ("425047fb 60 10 10 10 00 03 924740 00", "RGB"),
        ("425047fb 20 02 10 10 00 03 924740 00", "without -limitedrange"),
        ("425047fb 20 00 10 00 00 03 924740 00", "16x0 pixels"),
        ("425047fb 20 00 819c20 819c20 00 03 924740 00", "20000x20000, 400000000 pixels, over"),
        ("425047fb 20 00 10 10 00 03 000000 00", "header"),
        ("425047fb 20 00 10 10 00 03 01ffff 00", "header"),
    ],
)
def test_what_is_not_read_is_refused_in_one_line(header: str, line: str) -> None:
    with pytest.raises(DataError, match=line) as error:
        BPGFile.from_bytes(bytes.fromhex(header))
    assert "\n" not in str(error.value)
