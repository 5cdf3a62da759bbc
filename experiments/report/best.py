"""Best equal protection: each codec at the modulation and code rate that serve it best at each SNR.

    a sweep over channels that differ in their MCS ── summary.parquet ──> best-METRIC.csv
    (the same symbol channel, channel uses, SNR)        the best line of each group, its parameters

The choice is made for each SNR, with the mean SNR known and all packets protected alike, by the
metric's mean over the pictures that are reported: a bound on what a link that adapts its MCS could
do, and no straw man. Ideal codes are a group of their own. CBR is k / (3 H W), complex symbols to
real source values, and `cbr_real` twice that.

    python -m experiments.report.best results/paper-awgn --metric psnr_db
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from channels.atomic import whole_file
from channels.config.builder import build
from channels.config.description import name_and_parameters
from channels.config.packet_size import with_packet_size
from channels.registry import nearest
from experiments.sweep.grid import canonical
from experiments.sweep.results import manifest_of
from experiments.sweep.store import read_parquet, read_results
from sqlink.errors import ConfigError, SQLinkError


def protection(spec: object, packet_bytes: int) -> dict[str, Any]:
    """What a link's description comes to: symbol channel, CSI, modulation, code rate, lengths.

    >>> found = protection({"coded": {"over": "awgn", "code_rate": 0.5}}, 96)
    >>> found["over"], found["modulation"], found["information_bits"], found["coded_bits"]
    ('awgn', 'qpsk', 792, 1584)
    """
    kind, parameters = name_and_parameters("channel", spec)
    link: Any = build(with_packet_size(spec, packet_bytes))
    over = parameters.get("over", "awgn")
    name, options = name_and_parameters("symbol channel", over)
    plan = getattr(link, "layout", None)
    coded = None if plan is None else plan.coded_bits
    uses = link.uses_per_packet(packet_bytes)
    rate = getattr(link, "code_rate", None)
    return {
        "code": f"ideal {link.law}" if kind == "ideal" else getattr(link, "code", "none"),
        "over": name,
        "over_options": canonical(options),
        "csi": options.get("csi", "perfect"),
        "modulation": getattr(link, "modulation", None),
        "code_rate": rate,
        "packet_bytes": packet_bytes,
        "information_bits": None if coded is None or rate is None else round(coded * rate),
        "coded_bits": coded,
        "uses_per_packet": uses,
    }


def best_lines(folder: Path, metric: str) -> list[dict[str, Any]]:
    """The best line of a sweep's summary for each codec, symbol channel, rate and SNR.

    Raises ConfigError where the folder holds no finished sweep or no such metric.
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
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for line in lines:
        score = line.get(metric)
        if score is None or math.isnan(score):
            continue
        met = protection(links[line["channel"]], line["packet_bytes"])
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
    """Descriptions of a sweep's channels by their names, from its manifest."""
    sweep = told.get("sweep", {})
    if sweep.get("channels"):
        return dict(sweep["channels"])
    return {name_and_parameters("channel", sweep.get("channel"))[0]: sweep.get("channel")}


def write_best(folder: Path, metric: str) -> Path:
    """Write `best-METRIC.csv` into the results' folder; returns its path."""
    rows = best_lines(folder, metric)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["codec"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
    )
    path = folder / f"best-{metric}.csv"
    try:
        with whole_file(path) as aside:
            aside.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
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
