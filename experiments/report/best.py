"""Best equal protection: each codec at its best modulation and code rate at each SNR.

    a sweep over channels that differ in their MCS ── summary.parquet ──> best-METRIC.csv
    (the same symbol channel, channel uses, SNR)        the best line of each group, its parameters

The choice is made for each SNR, with the mean SNR known and all packets protected alike, by the
metric's mean over the reported pictures: an upper bound for a link that adapts its MCS, and
therefore a strong baseline. Ideal codes form groups of their own: `capacity`, which under block
fading is the `outage capacity`, and the `normal approximation` of the best code of a packet's
length. A codec of symbols has no code. Channels with RaptorQ across a picture's packets compete
with those without, and the column `across` shows the choice. CBR is k / (3 H W), complex symbols to
real source values, and `cbr_real` twice that. `setting` is the mean native quality that the codec
chose to fit the packets, for BPG the QP.

    python -m experiments.report.best results/paper-awgn --metric psnr_db
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from channels.atomic_write import whole_file
from channels.base import FixedSize
from channels.config.builder import build
from channels.config.description import name_and_parameters
from channels.config.packet_size import with_packet_size
from channels.link.base import BaseLink
from channels.link.coded import CodedLink
from channels.link.ideal import IdealLink
from channels.link.mcs import TABLES, mcs_table
from channels.registry import nearest
from experiments.sweep.grid import canonical
from experiments.sweep.results import manifest_of
from experiments.sweep.store import read_parquet, read_results
from sqlink.analogue import symbol_codec_names
from sqlink.errors import ConfigError, SQLinkError

_ACROSS = ("raptorq", "interleave")
"""Channels around a link that act on all packets of a picture."""


def protection(spec: object, packet_bytes: int) -> dict[str, Any]:
    """Return the properties of a link from its description: symbol channel, CSI, code and lengths.

    The key `across` is the channel around the link, such as RaptorQ with its parameters, or None.

    >>> found = protection({"coded": {"over": "awgn", "code_rate": 0.5}}, 96)
    >>> found["over"], found["modulation"], found["information_bits"], found["coded_bits"]
    ('awgn', 'qpsk', 792, 1584)
    """
    spec = with_packet_size(spec, packet_bytes)
    kind, parameters = name_and_parameters("channel", spec)
    across = None
    while kind in _ACROSS:
        own = {name: value for name, value in parameters.items() if name != "over"}
        across = "; ".join(filter(None, (across, f"{kind} {canonical(own)}")))
        spec = parameters["over"]
        kind, parameters = name_and_parameters("channel", spec)
    link = build(spec)
    if isinstance(link, FixedSize):
        packet_bytes = link.packet_bytes
    over = parameters.get("over", "awgn")
    name, options = name_and_parameters("symbol channel", over)
    plan = link.layout if isinstance(link, CodedLink | IdealLink) else None
    rate = link.code_rate if isinstance(link, CodedLink | IdealLink) else None
    modulation = link.modulation if isinstance(link, BaseLink | IdealLink) else None
    code = link.code if isinstance(link, CodedLink) else "none"
    if isinstance(link, IdealLink):
        code = "normal approximation" if link.law == "finite_length" else "capacity"
        code = f"outage {code}" if name != "awgn" and code == "capacity" else code
    return {
        "code": code,
        "over": name,
        "over_options": canonical(options),
        "csi": options.get("csi", "perfect"),
        "modulation": modulation,
        "code_rate": rate,
        "mcs": _mcs(modulation, rate),
        "packet_bytes": packet_bytes,
        "information_bits": None if plan is None else plan.blocks * plan.k,
        "coded_bits": None if plan is None else plan.coded_bits,
        "uses_per_packet": link.uses_per_packet(packet_bytes),
        "across": across,
    }


def _mcs(modulation: str | None, code_rate: float | None) -> str | None:
    """Return table and index of the 5G MCS, such as `qam64 16`; None if none fits or without
    Sionna.
    """
    if modulation is None or code_rate is None or find_spec("sionna") is None:
        return None
    for table in TABLES:
        for row in mcs_table(table):
            if row.modulation == modulation and abs(row.code_rate - code_rate) < 1e-6:
                return f"{table} {row.index}"
    return None


def best_lines(folder: Path, metric: str) -> list[dict[str, Any]]:
    """Return the best line of a sweep's summary for each codec, symbol channel, rate and SNR.

    Raises ConfigError if the folder holds no finished sweep or no such metric.
    """
    results = read_results(folder)
    told = manifest_of(folder)
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    known = dict(told.get("metrics", {}))
    if metric not in known:
        raise ConfigError(f"{folder}: no metric '{metric}': {nearest(metric, sorted(known))}")
    higher = bool(known[metric]["higher_is_better"])
    pixels = [
        3 * h * w
        for h, w in zip(results["height"].to_pylist(), results["width"].to_pylist(), strict=True)
    ]
    values = sum(pixels) / len(pixels)
    links = _links(told)
    codecs = told.get("sweep", {}).get("codecs", ())
    symbols = {one["label"] or one["name"] for one in codecs if one["name"] in symbol_codec_names()}
    met_by = {
        key: protection(links[key[0]], key[1])
        for key in dict.fromkeys((line["channel"], line["packet_bytes"]) for line in lines)
    }
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for line in lines:
        score = line.get(metric)
        if score is None or math.isnan(score):
            continue
        met = met_by[line["channel"], line["packet_bytes"]]
        if line["codec"] in symbols:
            met = {k: v if k in ("over", "over_options", "csi") else None for k, v in met.items()}
            met["code"] = "none"
        asked = line["channel_uses_asked"]
        uses = line["channel_uses"] if asked is None else asked
        row = {
            "codec": line["codec"],
            "over": met["over"],
            "over_options": met["over_options"],
            "csi": met["csi"],
            "rate": line["rate"],
            "cbr": uses / values,
            "cbr_real": 2 * uses / values,
            **{name: line[name] for name in told.get("conditions", ())},
            metric: score,
            f"{metric}_low": line.get(f"{metric}_low"),
            f"{metric}_high": line.get(f"{metric}_high"),
            "outage": line["outage"],
            "unreachable": line["unreachable"],
            "channel": line["channel"],
            **{name: value for name, value in met.items() if name not in ("over", "csi")},
            "setting": line.get("setting"),
            "bytes": line["bytes"],
            "channel_uses": line["channel_uses"],
            "pictures": line["pictures"],
            "realisations": line["realisations"],
        }
        conditions = tuple(line[name] for name in told.get("conditions", ()))
        key = (row["codec"], met["code"], met["over"], met["over_options"], row["rate"], conditions)
        groups.setdefault(key, []).append(row)
    pick = max if higher else min
    return [pick(group, key=lambda row: float(row[metric])) for group in groups.values()]


def _links(told: Mapping[str, Any]) -> dict[str, object]:
    """Return the descriptions of a sweep's channels by their names, from its manifest."""
    sweep = told.get("sweep", {})
    if sweep.get("channels"):
        return dict(sweep["channels"])
    return {name_and_parameters("channel", sweep.get("channel"))[0]: sweep.get("channel")}


def best_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the lines as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["codec"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    return text.getvalue()


def write_best(folder: Path, metric: str) -> Path:
    """Write `best-METRIC.csv` into the results folder; return its path."""
    text = best_table(best_lines(folder, metric))
    path = folder / f"best-{metric}.csv"
    try:
        with whole_file(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report.best")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metric", default="psnr_db")
    options = parser.parse_args(arguments)
    try:
        print(write_best(options.folder, options.metric))
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
