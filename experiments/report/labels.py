"""Readable names of codecs, channels, rates and the ledger: `sqgan` as SQ-GAN.

Quantities and their units are in `axes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

CODECS: Mapping[str, str] = {
    "sqgan": "SQ-GAN",
    "jpeg2000": "JPEG2000",
    "bpg": "BPG",
    "bpg+map": "BPG + map",
    "map_only": "map only",
    "jpeg": "JPEG",
    "webp": "WebP",
    "avif": "AVIF",
    "heic": "HEIC",
    "jpegxl": "JPEG XL",
    "vvc": "VVC",
    "deepjscc": "DeepJSCC",
}

CHANNELS: Mapping[str, str] = {
    "lossless": "a lossless link",
    "iid": "independent losses",
    "iid_erasure": "independent losses",
    "bursts": "bursts of losses",
    "gilbert_elliott": "Gilbert-Elliott",
    "awgn": "AWGN",
    "rayleigh": "Rayleigh fading",
    "rician": "Rician fading",
    "jakes": "Jakes fading",
    "tdl": "3GPP TDL",
    "cdl": "3GPP CDL",
    "bsc": "binary symmetric channel",
    "bec": "binary erasure channel",
    "trace": "recorded trace",
    "rate_limit": "rate limit",
    "token_bucket": "token bucket",
    "bottleneck": "bottleneck",
    "harq": "HARQ",
    "adaptive": "link adaptation",
    "interleave": "interleaver",
    "unequal": "unequal protection",
    "raptorq": "RaptorQ",
    "finite_blocklength": "normal approximation",
}
_CODED = ("coded", "lookup", "uncoded")
_READY = {"awgn": {"modulation": "qpsk", "code_rate": 0.5}}
_READY["rayleigh"] = _READY["awgn"]
"""Modulation and code rate of the ready channels."""

LEDGER: Mapping[str, tuple[str, str]] = {
    "index": ("token indices", "content"),
    "payload": ("compressed picture", "content"),
    "mask": ("positions", "content"),
    "session": ("session", "overhead"),
    "header": ("packet headers", "overhead"),
    "coder": ("coder remainder", "overhead"),
    "padding": ("padding", "overhead"),
    "crc": ("CRC", "protection"),
    "fec": ("FEC parity", "protection"),
    "pilots": ("pilots", "protection"),
    "relay": ("further hops", "protection"),
}
"""Map from an entry of the ledger to its readable name and its group."""

RATE_UNITS = {"bpp": "bpp", "bytes": "bytes", "channel_uses": "channel uses", "quality": ""}


def codec_title(name: str) -> str:
    """Write a codec's name in readable form; a user's label stays unchanged.

    >>> codec_title("sqgan"), codec_title("my codec")
    ('SQ-GAN', 'my codec')
    """
    return CODECS.get(name, name)


def rate_parts(label: str) -> tuple[str, float]:
    """Return kind and value of a rate's label.

    >>> rate_parts("bpp=0.04")
    ('bpp', 0.04)
    """
    kind, value = label.split("=")
    return kind, float(value)


def rate_title(label: str) -> str:
    """Write a rate's label in readable form.

    >>> rate_title("bpp=0.04"), rate_title("channel_uses=4800"), rate_title("quality=30")
    ('0.04 bpp', '4800 channel uses', 'quality 30')
    """
    kind, value = rate_parts(label)
    return f"quality {value:g}" if kind == "quality" else f"{value:g} {RATE_UNITS[kind]}"


def channel_title(spec: Any) -> str:
    """Describe a channel in a few words.

    >>> channel_title("rayleigh")
    'Rayleigh fading, QPSK, code rate 1/2'
    >>> channel_title([{"iid_erasure": {"loss": 0.1}}, "awgn"])
    'independent losses (loss 0.1), then AWGN, QPSK, code rate 1/2'
    >>> channel_title({"coded": {"over": "awgn", "modulation": "16qam", "code_rate": 0.75}})
    'AWGN, 16-QAM, code rate 3/4'
    """
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return ", then ".join(channel_title(link) for link in spec)
    if isinstance(spec, str):
        coded = _coded_title(_READY[spec]) if spec in _READY else []
        return ", ".join([CHANNELS.get(spec, spec), *coded])
    if not isinstance(spec, Mapping) or len(spec) != 1:
        return str(spec)
    ((name, given),) = spec.items()
    options = dict(given) if isinstance(given, Mapping) else {}
    over = options.pop("over", None)
    if name in _CODED or name in _READY:
        base = _air_title(over) if over is not None else CHANNELS.get(name, name)
        return ", ".join([base, *_coded_title({**_READY.get(name, {}), **options})])
    texts = [
        f"{key.replace('_', ' ')} {value:g}"
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else f"{key.replace('_', ' ')} {value}"
        for key, value in options.items()
        if isinstance(value, (int, float, str))
    ]
    title = CHANNELS.get(name, name.replace("_", " ")) + (f" ({', '.join(texts)})" if texts else "")
    return title if over is None else f"{title} over {channel_title(over)}"


def _air_title(spec: Any) -> str:
    """Describe the symbol channel under a modem; it is not coded."""
    if isinstance(spec, str):
        return CHANNELS.get(spec, spec)
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, _),) = spec.items()
        return CHANNELS.get(name, str(name))
    return channel_title(spec)


def _coded_title(options: Mapping[str, Any]) -> list[str]:
    texts = []
    if isinstance(options.get("modulation"), str):
        name = options["modulation"].upper()
        texts.append(f"{name[:-3]}-QAM" if name.endswith("QAM") and name[:-3].isdigit() else name)
    if isinstance(options.get("code_rate"), (int, float)):
        texts.append(f"code rate {_fraction(options['code_rate'])}")
    return texts


def _fraction(value: float) -> str:
    near = Fraction(value).limit_denominator(12)
    return str(near) if abs(near - value) < 1e-6 else f"{value:.3f}"
