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


Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
]


CodecName = Annotated[str, typer.Option("--codec", help="Codec by name: sqgan, jpeg2000, bpg, ...")]


CodecOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--codec-option",
        metavar="NAME=VALUE",
        help="An option of the codec, such as packing=single; repeatable.",
    ),
]


Bpp = Annotated[
    float | None,
    typer.Option("--bpp", help=f"Largest rate in bits per pixel; by default {DEFAULT_BPP}."),
]


Bytes = Annotated[int | None, typer.Option("--bytes", help="Largest size in bytes per picture.")]


Quality = Annotated[float | None, typer.Option("--quality", help="Native quality of the codec.")]


Maps = Annotated[
    list[Path] | None,
    typer.Option(
        "--segmentation",
        metavar="MAP.png",
        help="Map to send instead of the transmitter's; once per picture, in their order.",
    ),
]


PacketBytes = Annotated[
    int | None, typer.Option("--packet-bytes", min=1, help="Packet size in bytes.")
]


Weights = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="Weights: a name or a file.")
]


Device = Annotated[str | None, typer.Option("--device", help="Device: cpu, cuda or cuda:N.")]


MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=1, help="Largest number of pixels of a picture.")
]


def yaml_value(option: str, text: str) -> object:
    """Read the value of an option as YAML. Raises ConfigError."""
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
    """Return the device called `name`. Raises ConfigError if it does not exist."""
    from sqlink.runtime.device import select_device

    return str(select_device(name or "cpu", "--device"))


def codec_of(
    name: str,
    packet_bytes: int | None,
    weights: str | None,
    device: str | None,
    given: list[str] | None = None,
) -> Codec:
    """Make a codec with the given options; only a codec with networks gets a device."""
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
            raise ConfigError(f"--codec-option {text}: give NAME=VALUE, such as packing=single")
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

    given: values of their own options. named: NAME=VALUE each. Raises ConfigError if one is
    missing, not a number, or not a condition of the channel.
    """
    from sqlink.errors import ConfigError

    conditions = {name: value for name, value in given.items() if value is not None}
    for text in named or ():
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"--condition {text}: give NAME=VALUE, such as snr_db=5") from None
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
