"""HEVC parameter sets, between x265's stream and BPG's short header (H.265, 7.3).

A BPG file omits the VPS and SPS of an intra picture and keeps the few variable values of the SPS:

    x265:  VPS SPS PPS slice ── parse_sps ──> Tools in the BPG header + PPS slice
    BPG:   Tools + size ── parameter_sets ──> VPS SPS, before PPS slice, for any HEVC decoder

All other values are fixed by the format (bellard.org/bpg/bpg_spec.txt): ids 0, one sub-layer, no
conformance window, equal bit depths, no scaling list, picture order count of 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlink.codecs.bpg.bits import BitReader, BitWriter
from sqlink.errors import DataError

VPS, SPS, PPS = 32, 33, 34
IDR = (19, 20)
START_CODE = b"\0\0\0\1"
_RANGE_FLAGS = 9
_PROFILE_RANGE_EXTENSIONS = 4


@dataclass(frozen=True)
class PCM:
    """Format of uncompressed blocks."""

    luma_depth_minus1: int
    chroma_depth_minus1: int
    log2_min_size_minus3: int
    log2_diff_size: int
    loop_filter_disabled: int


@dataclass(frozen=True)
class Tools:
    """The part of the SPS that a BPG file states: block sizes and coding tools."""

    log2_min_cb_minus3: int
    log2_diff_cb: int
    log2_min_tb_minus2: int
    log2_diff_tb: int
    max_transform_depth_intra: int
    sao: int
    pcm: PCM | None
    strong_intra_smoothing: int
    range_extension: int | None = None
    """Nine flags, the first one most significant; None if the SPS has no extension."""

    @property
    def min_cb(self) -> int:
        """Smallest coding block, pixels: coded sizes are multiples of it."""
        return 8 << self.log2_min_cb_minus3

    def to_bytes(self) -> bytes:
        """Return `hevc_header_and_data` of a BPG file up to its NAL units."""
        bits = BitWriter()
        for value in (
            self.log2_min_cb_minus3,
            self.log2_diff_cb,
            self.log2_min_tb_minus2,
            self.log2_diff_tb,
            self.max_transform_depth_intra,
        ):
            bits.ue(value)
        bits.u(1, self.sao)
        _write_pcm(bits, self.pcm)
        bits.u(1, self.strong_intra_smoothing)
        _write_extension(bits, self.range_extension)
        return bits.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Tools:
        """Read what `to_bytes` writes. Raises DataError if it is cut short or out of range."""
        bits = BitReader(data)
        min_cb, diff_cb, min_tb, diff_tb, depth = (bits.ue() for _ in range(5))
        sao = bits.u(1)
        pcm = _read_pcm(bits)
        strong = bits.u(1)
        extension: int | None = None
        if bits.u(1):
            has_range = bits.u(1)
            if bits.u(7):
                raise DataError("the HEVC header asks for an extension that BPG does not have")
            extension = bits.u(_RANGE_FLAGS) if has_range else None
        if min_cb + 3 + diff_cb > 6 or max(min_tb, diff_tb, depth) > 4:
            raise DataError("the HEVC header holds a block size out of range")
        return cls(min_cb, diff_cb, min_tb, diff_tb, depth, sao, pcm, strong, extension)


def _write_pcm(bits: BitWriter, pcm: PCM | None) -> None:
    bits.u(1, int(pcm is not None))
    if pcm is not None:
        bits.u(4, pcm.luma_depth_minus1)
        bits.u(4, pcm.chroma_depth_minus1)
        bits.ue(pcm.log2_min_size_minus3)
        bits.ue(pcm.log2_diff_size)
        bits.u(1, pcm.loop_filter_disabled)


def _read_pcm(bits: BitReader) -> PCM | None:
    if not bits.u(1):
        return None
    return PCM(bits.u(4), bits.u(4), bits.ue(), bits.ue(), bits.u(1))


def _write_extension(bits: BitWriter, flags: int | None) -> None:
    bits.u(1, int(flags is not None))
    if flags is not None:
        bits.u(8, 0x80)
        bits.u(_RANGE_FLAGS, flags)


def parameter_sets(tools: Tools, width: int, height: int, chroma_format: int, depth: int) -> bytes:
    """Make VPS and SPS with start codes, for a picture of coded size width x height.

    chroma_format: chroma_format_idc, 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4. depth: bits a sample.
    """
    vps = BitWriter()
    for count, value in ((4, 0), (2, 3), (6, 0), (3, 0), (1, 1), (16, 0xFFFF)):
        vps.u(count, value)
    _write_profile(vps)
    vps.u(1, 1)  # ordering information for the one sub-layer: 1 picture, none reordered
    for _ in range(3):
        vps.ue(0)
    vps.u(6, 0)  # highest layer id
    vps.ue(0)  # one layer set
    vps.u(1, 0)  # no timing
    vps.u(1, 0)  # no extension

    sps = BitWriter()
    for count, value in ((4, 0), (3, 0), (1, 1)):
        sps.u(count, value)
    _write_profile(sps)
    sps.ue(0)
    sps.ue(chroma_format)
    if chroma_format == 3:
        sps.u(1, 0)  # planes are not coded separately
    sps.ue(width)
    sps.ue(height)
    sps.u(1, 0)  # no conformance window
    sps.ue(depth - 8)
    sps.ue(depth - 8)
    sps.ue(4)  # 8 bits of picture order count
    sps.u(1, 1)
    for _ in range(3):
        sps.ue(0)
    for value in (
        tools.log2_min_cb_minus3,
        tools.log2_diff_cb,
        tools.log2_min_tb_minus2,
        tools.log2_diff_tb,
        tools.max_transform_depth_intra,  # inter
        tools.max_transform_depth_intra,
    ):
        sps.ue(value)
    sps.u(1, 0)  # no scaling list
    sps.u(1, 1)  # asymmetric motion partitions
    sps.u(1, tools.sao)
    _write_pcm(sps, tools.pcm)
    sps.ue(0)  # no reference picture sets
    sps.u(1, 0)  # no long-term references
    sps.u(1, 1)  # temporal motion prediction
    sps.u(1, tools.strong_intra_smoothing)
    sps.u(1, 0)  # no VUI
    _write_extension(sps, tools.range_extension)
    return b"".join(
        START_CODE + bytes((kind << 1, 1)) + escape(_stop(bits).to_bytes())
        for kind, bits in ((VPS, vps), (SPS, sps))
    )


def _write_profile(bits: BitWriter) -> None:
    """Write profile_tier_level(1, 0): range extensions, progressive frames, no level limit."""
    bits.u(2, 0)
    bits.u(1, 0)
    bits.u(5, _PROFILE_RANGE_EXTENSIONS)
    bits.u(32, 1 << 31 - _PROFILE_RANGE_EXTENSIONS)
    bits.u(4, 0b1001)
    bits.u(44, 0)
    bits.u(8, 255)


def _stop(bits: BitWriter) -> BitWriter:
    bits.u(1, 1)
    return bits


def escape(payload: bytes) -> bytes:
    """Insert 03 between two zeros and a byte of 0 to 3, so that no start code appears inside."""
    out = bytearray()
    zeros = 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def unescape(data: bytes) -> bytes:
    """Undo `escape`."""
    return data.replace(b"\0\0\3", b"\0\0")


def nal_units(stream: bytes) -> list[bytes]:
    """Split a stream with start codes into its NAL units, headers first, in order."""
    pieces = stream.split(b"\0\0\1")
    return [piece.rstrip(b"\0") for piece in pieces[1:]]


def nal_type(unit: bytes) -> int:
    """Return the nal_unit_type of a NAL unit."""
    return unit[0] >> 1 & 0x3F


def parse_sps(unit: bytes) -> tuple[Tools, int, int]:
    """Read the tools, coded width and coded height that an SPS of an intra picture states.

    Raises ValueError if BPG cannot express the SPS: then no genuine file can be made.
    """
    bits = BitReader(unescape(unit[2:]))
    bits.u(4)
    if bits.u(3):
        raise ValueError("the SPS has sub-layers")
    bits.u(1)
    bits.u(96)
    sps_id = bits.ue()
    chroma_format = bits.ue()
    planes = bits.u(1) if chroma_format == 3 else 0
    width, height = bits.ue(), bits.ue()
    window = bits.u(1)
    luma_depth, chroma_depth = bits.ue(), bits.ue()
    order_bits = bits.ue() + 4
    bits.u(1)
    for _ in range(3):
        bits.ue()
    min_cb, diff_cb, min_tb, diff_tb = bits.ue(), bits.ue(), bits.ue(), bits.ue()
    bits.ue()
    depth_intra = bits.ue()
    scaling = bits.u(1)
    bits.u(1)
    sao = bits.u(1)
    pcm = _read_pcm(bits)
    reference_sets = bits.ue()
    assumed = {
        "id": (sps_id, 0),
        "separate planes": (planes, 0),
        "conformance window": (window, 0),
        "chroma bit depth": (chroma_depth, luma_depth),
        "bits of picture order count": (order_bits, 8),
        "scaling list": (scaling, 0),
        "reference sets": (reference_sets, 0),
    }
    for name, (found, expected) in assumed.items():
        if found != expected:
            raise ValueError(f"the SPS has {name} {found}, BPG assumes {expected}")
    bits.u(1)
    bits.u(1)
    strong = bits.u(1)
    tools = Tools(min_cb, diff_cb, min_tb, diff_tb, depth_intra, sao, pcm, strong)
    return tools, width, height
