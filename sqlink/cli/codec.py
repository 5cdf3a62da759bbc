"""Commands that code pictures: encode, decode, transmit, segment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sqlink.cli.errors import naming
from sqlink.cli.files import inputs_of, labels_of, read_bytes, targets_of, write_received
from sqlink.cli.options import (
    Bpp,
    Bytes,
    CodecName,
    CodecOptions,
    Device,
    Maps,
    MaxPixels,
    Output,
    PacketBytes,
    Pictures,
    Quality,
    Weights,
    codec_of,
    conditions_of,
    device_of,
    rate_of,
)
from sqlink.cli.progress import search_shown
from sqlink.cli.quality import QualityMeter, side_by_side

if TYPE_CHECKING:
    from torch import Tensor

    from sqlink.codecs.base import Codec, Stream
    from sqlink.link import LinkResult


def encode(
    pictures: Pictures,
    output: Output,
    codec: CodecName = "sqgan",
    codec_option: CodecOptions = None,
    bpp: Bpp = None,
    bytes_: Bytes = None,
    quality: Quality = None,
    segmentation: Maps = None,
    packet_bytes: PacketBytes = None,
    weights: Weights = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Encode each picture to a file, and print its size in bytes and in bits per pixel."""
    from sqlink.codecs.base import Stream
    from sqlink.data.pictures import pixel_limit, write_aside
    from sqlink.errors import DataError
    from sqlink.transmitter import Transmitter

    rate = rate_of(bpp, bytes_, quality)
    coder = codec_of(codec, packet_bytes, weights, device, codec_option)
    with pixel_limit(max_pixels), search_shown(coder):
        targets = targets_of(pictures, output, coder.suffix)
        transmitter = Transmitter(coder)
        for path, target, image, labels in inputs_of(pictures, targets, segmentation, coder):
            (answer,) = transmitter.send(image, rate, labels)
            if not isinstance(answer, Stream):
                raise DataError(f"{path}: {answer}")
            write_aside(answer.to_bytes(), target)
            print(f"{target} {answer.size} bytes {answer.bpp:.4f} bpp", flush=True)


def decode(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Encoded files.")],
    output: Output,
    weights: Weights = None,
    codec_option: CodecOptions = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Decode files to NAME.png, and to NAME.map.png if the stream carries a map."""
    from sqlink.codecs import codec_for_suffix
    from sqlink.codecs.base import Received
    from sqlink.data.pictures import pixel_limit
    from sqlink.errors import DataError

    with pixel_limit(max_pixels):
        targets = targets_of(files, output, ".png")
        names = []
        for path in files:
            with naming(path):
                names.append(codec_for_suffix(path.suffix))
        coders: dict[str, Codec] = {}
        for path, name, target in zip(files, names, targets, strict=True):
            if name not in coders:
                coders[name] = codec_of(name, None, weights, device, codec_option)
            with naming(path):
                stream = coders[name].parse(read_bytes(path))
            decoded = coders[name].decode([Received.whole(stream)])
            if bool(decoded.outage[0]):
                raise DataError(
                    f"{path}: nothing can be decoded: the file is damaged, encode the picture again"
                )
            maps = decoded.segmentation
            write_received(
                target, decoded.images[0], None if maps is None else maps[0], coders[name]
            )
            size = f"{stream.session.width}x{stream.session.height}"
            print(f"{target} {size} from {stream.size} bytes {stream.bpp:.4f} bpp", flush=True)


def transmit(
    pictures: Pictures,
    output: Output,
    channel: Annotated[
        str,
        typer.Option("--channel", metavar="CHANNEL.yaml|NAME", help="A channel: a file or a name."),
    ],
    snr_db: Annotated[
        str | None, typer.Option("--snr-db", metavar="FLOAT", help="Mean Es/N0 in dB.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", metavar="FLOAT", help="Packet loss, 0..1.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--condition", metavar="NAME=VALUE", help="A condition of the channel; repeatable."
        ),
    ] = None,
    codec: CodecName = "sqgan",
    codec_option: CodecOptions = None,
    bpp: Bpp = None,
    bytes_: Bytes = None,
    quality: Quality = None,
    channel_uses: Annotated[
        int | None,
        typer.Option("--channel-uses", help="Largest number of channel uses per picture."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the channel's random numbers.")] = 0,
    segmentation: Maps = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels", metavar="MAP.png", help="True labels to measure with; once per picture."
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Print the quality, and write NAME.side.png."),
    ] = True,
    packet_bytes: PacketBytes = None,
    weights: Weights = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Send pictures over a channel, write the received pictures, print ledger and quality."""
    from channels.config.builder import load
    from sqlink.codecs.base import Unreachable
    from sqlink.crossing import packet_size
    from sqlink.data.pictures import pixel_limit
    from sqlink.errors import DataError
    from sqlink.link import Link
    from sqlink.receiver import Receiver
    from sqlink.transmitter import Transmitter

    rate = rate_of(bpp, bytes_, quality, channel_uses)
    coder = codec_of(codec, packet_bytes, weights, device, codec_option)
    carrier = load(channel, packet_size(coder, packet_bytes))
    numbers = {"snr_db": _one_number("--snr-db", snr_db), "loss": _one_number("--loss", loss)}
    conditions = conditions_of(carrier, numbers, condition)
    quality_of = QualityMeter() if measure else None
    link = Link(
        Transmitter(coder),
        carrier,
        Receiver(coder),
        packet_bytes,
        device_of(device),
    )
    with pixel_limit(max_pixels), search_shown(coder):
        beside = (".map.png", ".side.png") if measure else (".map.png",)
        maps = [*(segmentation or ()), *(labels or ())]
        targets = targets_of(pictures, output, ".png", maps, beside)
        truths = labels_of(labels, pictures)
        inputs = inputs_of(pictures, targets, segmentation, coder)
        for (path, target, image, given), truth in zip(inputs, truths, strict=True):
            result = link.run(
                image, rate, conditions, seed=seed, names=[target.stem], segmentation=given
            )
            (sent,) = result.sent
            if isinstance(sent, Unreachable):
                raise DataError(f"{path}: {sent}")
            write_received(target, result.image(0), result.segmentation(0), coder)
            _print_ledger(target, sent, result, channel_uses)
            if quality_of is not None:
                _print_quality(quality_of, target, image[0], result, truth)


def segment(
    pictures: Pictures,
    output: Output,
    segmenter: Annotated[
        str, typer.Option("--segmenter", help="Segmenter by name: tx, judge, ...")
    ] = "tx",
    weights: Weights = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Write the segmentation map of each picture, NAME.map.png: class ids with a palette."""
    from sqlink.data.classes import NAMES, NO_LABEL
    from sqlink.data.pictures import pixel_limit, save_map
    from sqlink.segmentation import load_segmenter

    options = {} if weights is None else {"weights": weights}
    network = load_segmenter(segmenter, device=device_of(device), **options)
    with pixel_limit(max_pixels):
        targets = targets_of(pictures, output, ".map.png")
        for _, target, image, _ in inputs_of(pictures, targets, None, None):
            labels = network.segment(image)[0]
            save_map(labels, target)
            counts = labels[labels != NO_LABEL].bincount(minlength=len(NAMES)).tolist()
            shares = sorted(zip(counts, NAMES, strict=True), reverse=True)
            seen = ", ".join(f"{name} {n / labels.numel():.1%}" for n, name in shares[:4] if n)
            print(f"{target} {seen}", flush=True)


def _print_quality(
    quality: QualityMeter, target: Path, original: Tensor, result: LinkResult, labels: Tensor | None
) -> None:
    """Print the quality of the picture received, and write it beside the original."""
    image, carried = result.image(0), result.segmentation(0)
    seen, before = quality.seen(image), quality.seen(original)
    print(f"  {quality.line(image, original, seen, before, labels)}", flush=True)
    maps = [before if labels is None else labels, seen, *([] if carried is None else [carried])]
    side_by_side(target.with_name(f"{target.stem}.side.png"), [original, image], maps)


def _print_ledger(target: Path, sent: Stream, result: LinkResult, asked: int | None) -> None:
    """Print what a crossing delivered, and its ledger; the entries add up to the total.

    asked: channel uses, if the rate was given in them.
    """
    present = result.delivered.shape[-1]
    delivered = int(result.delivered[0, 0].sum())
    wrong = delivered - int((result.delivered & result.correct)[0, 0].sum())
    uses = int(result.channel_uses[0, 0])
    entries = {name: int(bits[0, 0]) for name, bits in result.ledger.items()}
    total = sum(entries.values())
    print(
        f"{target} {sent.size} bytes {sent.bpp:.4f} bpp, packets {delivered} delivered "
        f"{present - delivered} lost" + (f" {wrong} wrong" if wrong else ""),
        end="",
    )
    on_air = int(result.sent_bytes[0, 0])
    if on_air != sent.size:
        came = int(result.delivered_bytes[0, 0])
        print(f", {sent.size} bytes offered {on_air} sent {came} delivered", end="")
    if uses:
        print(f", {uses} channel uses" + (f" of {asked} asked" if asked else ""), end="")
    print(", nothing could be decoded" if bool(result.outage[0, 0]) else "")
    if not sys.stdout.isatty():
        for name, bits in [*entries.items(), ("total", total)]:
            print(f"  {name:<8} {bits:>10} bits {bits / total:7.2%}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("entry", show_footer=True)
    table.columns[0].footer = "total"
    table.add_column("bits", footer=str(total), justify="right")
    table.add_column("share", footer="100 %", justify="right")
    for name, bits in entries.items():
        table.add_row(name, str(bits), f"{bits / total:.2%}")
    Console().print(table)


def _one_number(option: str, text: str | None) -> float | None:
    """Parse a condition of `transmit`. Raises ConfigError for a range, which sweeps take."""
    from sqlink.errors import ConfigError

    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"transmit: {option} {text} must be a number: for a range use `sqlink sweep`, or "
            "`sqlink channel` for the channel alone"
        ) from None
