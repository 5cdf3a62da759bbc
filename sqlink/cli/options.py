"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from channels.base import Channel
    from sqlink.codecs.base import Codec, Rate


DEFAULT_BPP = 0.04


Pictures = Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Picture files.")]


Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")]


CodecName = Annotated[str, typer.Option("--codec", help="sqgan, jpeg2000, bpg, ...")]


CodecOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--codec-option", metavar="NAME=VALUE", help="Of the codec, as packing=single; any number."
    ),
]


Bpp = Annotated[
    float | None, typer.Option("--bpp", help=f"Bits a pixel at most; {DEFAULT_BPP} if none.")
]


Bytes = Annotated[int | None, typer.Option("--bytes", help="Bytes a picture at most.")]


Quality = Annotated[float | None, typer.Option("--quality", help="The codec's own quality.")]


Maps = Annotated[
    list[Path] | None,
    typer.Option(
        "--segmentation",
        metavar="MAP.png",
        help="Map to send in place of the transmitter's own; once a picture, in their order.",
    ),
]


PacketBytes = Annotated[int | None, typer.Option("--packet-bytes", min=1, help="Packet size.")]


Weights = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="Weights, a name or a file.")
]


Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")]


MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=1, help="The most pixels of a picture to open.")
]


def yaml_value(option: str, text: str) -> object:
    """Read an option's YAML. Raises ConfigError."""
    from channels.config.yaml import read_yaml

    start = text if len(text) <= 60 else f"{text[:60]}..."
    return read_yaml(text, f"{option} {start}")


def rate_of(
    bpp: float | None,
    size: int | None,
    quality: float | None,
    channel_uses: int | None = None,
) -> Rate:
    from sqlink.codecs.base import Rate
    from sqlink.errors import ConfigError

    given = {
        "--bpp": bpp,
        "--bytes": size,
        "--quality": quality,
        "--channel-uses": channel_uses,
    }
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} exclude each other: give one")
    if not named:
        bpp = DEFAULT_BPP
    return Rate(bpp=bpp, bytes=size, quality=quality, channel_uses=channel_uses)


def device_of(name: str | None) -> str:
    """Return a device that exists. Raises ConfigError."""
    from sqlink.runtime.device import select_device

    return str(select_device(name or "cpu", "--device"))


def codec_of(
    name: str,
    packet_bytes: int | None,
    weights: str | None,
    device: str | None,
    given: list[str] | None = None,
) -> Codec:
    """Make a codec with the options that were given; a codec without networks gets no device."""
    from sqlink.codecs import load_codec, takes_option
    from sqlink.errors import ConfigError

    own: dict[str, Any] = {"packet_bytes": packet_bytes, "weights": weights}
    if takes_option(name, "device"):
        own["device"] = device_of(device)
    options = {k: v for k, v in own.items() if v is not None}
    for text in given or ():
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"--codec-option {text}: give NAME=VALUE, as packing=single")
        if key in ("packet_bytes", "weights", "device") and takes_option(name, key):
            raise ConfigError(f"--codec-option {text}: give it as --{key.replace('_', '-')}")
        if key in options:
            raise ConfigError(f"--codec-option {key} is given twice: give it once")
        options[key] = yaml_value(f"--codec-option {key}", value)
    return load_codec(name, **options)


def conditions_of(
    channel: Channel, given: dict[str, float | None], named: list[str] | None = None
) -> dict[str, float]:
    """Return the conditions that a channel needs, and no others.

    given: by options of their own. named: NAME=VALUE each. Raises ConfigError.
    """
    from sqlink.errors import ConfigError

    conditions = {name: value for name, value in given.items() if value is not None}
    for text in named or ():
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"--condition {text}: give NAME=VALUE, as snr_db=5") from None
        if name in conditions:
            raise ConfigError(f"--condition {name} is given twice: give it once")
        conditions[name] = number
    for name in channel.needs:
        if name not in conditions:
            option = f"--{name.replace('_', '-')}" if name in given else f"--condition {name}=VALUE"
            raise ConfigError(f"channel '{channel.name}' needs {name}: give {option}")
    for name in conditions:
        if name not in channel.needs:
            needs = ", ".join(channel.needs) or "none"
            option = f"--{name.replace('_', '-')}" if name in given else f"--condition {name}"
            raise ConfigError(
                f"channel '{channel.name}' does not take {option}: "
                f"the conditions it takes are {needs}"
            )
    return conditions
