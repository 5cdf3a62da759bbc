"""Replay of losses and delays that were recorded on a real link."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from channels.base import Conditions, Packets, Reception, erasure_reception, register
from channels.config.checks import choice, integer, seconds
from channels.errors import ConfigError
from channels.random import Randomness

CSV_SUFFIXES = (".csv", ".txt")


JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


@register("trace")
class Trace:
    """A replay of losses, or of losses and delays, that were recorded on a real link.

    file: CSV (.csv, .txt) or JSON lines (.jsonl, .ndjson, .json), UTF-8, one record per packet in
    the order of sending. In Python a path is relative to the working directory.

    records: kind of the records.
        "losses": 0 (delivered) or 1 (lost). CSV: any number of cells per line, after an optional
        header `lost`. JSON lines: 0, 1 or {"lost": 0 or 1}.
        "arrivals": time of arrival, seconds; an empty, missing or `inf` time is a lost packet. CSV:
        one column; or two columns, of which the first is the time of sending; or columns in any
        order under a header of `arrival_s` and `offered_s`. An empty line is a lost packet. JSON
        lines: a number, null, or {"offered_s": ..., "arrival_s": ...}.

    interval_s: for arrivals without times of sending, seconds between two packets sent, 0 to 10000
    (0: all were sent at once). The delay of a packet is its arrival minus its time of sending. With
    interval_s, the first time of sending is unknown, and the smallest delay of the file counts as
    0.

    end: "cyclic", the file starts again after its last record; "clipped", packets after its last
    record are lost. start: record of a link's first slot, 0 to length - 1, equal for all links;
    "random", drawn uniformly for each link. Empty slots take a record, too. deadline_s: a packet
    with a longer delay is lost, 0 to 10000 seconds; None: no limit.

    Statistics: `beyond_trace` int64 [N], packets sent after the end of a clipped file;
    `late_packets` int64 [N], packets lost by the deadline. Raises ConfigError, with file and line,
    for a record of any other form.
    """

    name = "trace"
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        file: str | Path,
        records: str = "losses",
        end: str = "cyclic",
        start: int | str = "random",
        interval_s: float | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.records = choice(self.name, "records", records, ("losses", "arrivals"))
        self.end = choice(self.name, "end", end, ("cyclic", "clipped"))
        if interval_s is not None and self.records == "losses":
            raise ConfigError(
                f"{self.name}: interval_s={interval_s!r} needs arrivals: give records: arrivals"
            )
        self.interval_s = (
            None if interval_s is None else seconds(self.name, "interval_s", interval_s)
        )
        self.deadline_s = (
            None if deadline_s is None else seconds(self.name, "deadline_s", deadline_s)
        )
        took = _losses(file) if self.records == "losses" else _delays(file, self.interval_s)
        if not took:
            raise ConfigError(
                f"{self.name}: {file} has no record: give a file with one record per packet"
            )
        self.delay_s = torch.tensor(took, dtype=torch.float64)
        """[length], delay of each recorded packet, seconds; infinite if it was lost."""
        self.start: int | None = None
        if not (isinstance(start, str) and start.lower() == "random"):
            if isinstance(start, bool) or not isinstance(start, int):
                raise ConfigError(f"{self.name}: start={start!r} must be an integer or random")
            self.start = integer(self.name, "start", start, 0, len(self.delay_s) - 1)

    def content_hash(self) -> str:
        """Return the SHA-256 of the recorded delays."""
        return hashlib.sha256(self.delay_s.numpy().tobytes()).hexdigest()

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Lose and delay N x P packets as recorded; reads no condition."""
        links, slots = packets.lengths.shape
        device, length = packets.device, len(self.delay_s)
        if self.start is None:
            first = (randomness.to(device).child("start").uniform(1) * length).to(torch.int64)
        else:
            first = torch.full((links, 1), self.start, device=device)
        position = first + torch.arange(slots, device=device)  # [N, P]
        delay = self.delay_s.to(device)[position % length]
        beyond = position >= length if self.end == "clipped" else torch.zeros_like(packets.present)
        came = packets.present & delay.isfinite() & ~beyond
        late = (
            torch.zeros_like(came) if self.deadline_s is None else came & (delay > self.deadline_s)
        )
        statistics = {
            "beyond_trace": (beyond & packets.present).sum(dim=1),
            "late_packets": late.sum(dim=1),
        }
        return erasure_reception(packets, came & ~late, delay, statistics)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


def _wrong(file: object, line: int, what: str) -> ConfigError:
    return ConfigError(f"trace: {file}, line {line}: {what}")


def _rows(file: object) -> Iterator[tuple[int, list[object] | dict[str, object]]]:
    """Yield the number of each line and its cells (none if it is empty) or its JSON object."""
    if not isinstance(file, (str, Path)):
        raise ConfigError(f"trace: file={file!r} must be the path of a CSV or JSON lines file")
    suffix = Path(file).suffix.lower()
    if suffix not in (*CSV_SUFFIXES, *JSON_SUFFIXES):
        known = ", ".join((*CSV_SUFFIXES, *JSON_SUFFIXES))
        raise ConfigError(f"trace: file={str(file)!r} must end in one of {known}")
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(f"trace: cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"trace: {file} is not UTF-8 text") from error
    if not lines[-1]:
        lines.pop()
    number_of = 0
    try:
        if suffix in CSV_SUFFIXES:
            for number_of, text in enumerate(lines, 1):
                cells = next(csv.reader([text], strict=True), [])
                yield number_of, [cell.strip() for cell in cells] if text.strip() else []
        else:
            for number_of, text in enumerate(lines, 1):
                value = json.loads(text) if text.strip() else None
                row = value if isinstance(value, dict) else [value]
                yield number_of, row if text.strip() else []
    except (csv.Error, ValueError, RecursionError) as error:
        form = "CSV" if suffix in CSV_SUFFIXES else "JSON"
        raise _wrong(
            file, number_of, f"is not valid {form}: {_shown(lines[number_of - 1])}"
        ) from error


def _shown(value: object) -> str:
    """Return a record, shortened, for an error."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _losses(file: object) -> list[float]:
    """Return the delay of each packet, s: 0 if delivered, infinity if lost."""
    took = []
    for line, row in _rows(file):
        if line == 1 and row == ["lost"]:
            continue
        symbols = row if isinstance(row, list) else [row["lost"] if [*row] == ["lost"] else row]
        for symbol in symbols:
            if str(symbol) not in ("0", "1"):
                raise _wrong(file, line, f"{_shown(symbol)} must be 0 (delivered) or 1 (lost)")
            took.append(math.inf if str(symbol) == "1" else 0.0)
    return took


_SENT, _ARRIVED = "offered_s", "arrival_s"


def _seconds(value: object) -> float:
    """Return a recorded time, infinity for none. Raises ValueError if it is not a time."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "null")):
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    time = float(value)
    if math.isnan(time) or time == -math.inf:
        raise ValueError
    return time


def _times(file: object) -> list[tuple[int, float, float]]:
    """Return line, time of sending and time of arrival of each packet; infinity for no time."""
    columns: list[object] = []
    packets = []
    for line, row in _rows(file):
        if isinstance(row, list):
            if row and not columns:
                if _ARRIVED in row and all(cell in (_SENT, _ARRIVED) for cell in row):
                    columns = row
                    continue
                columns = [*(_SENT, _ARRIVED)[-len(row) :]]
            if len(row) > len(columns):
                raise _wrong(file, line, f"{len(row)} cells: give {max(len(columns), 1)}")
            row = {str(key): value for key, value in zip(columns, row, strict=False)}
        for key in row:
            if key not in (_SENT, _ARRIVED):
                raise _wrong(file, line, f"{_shown(key)} must be {_SENT} or {_ARRIVED}")
        times = {_SENT: math.inf, _ARRIVED: math.inf}
        for key, value in row.items():
            try:
                times[key] = _seconds(value)
            except (ValueError, OverflowError):
                what = f"{key}={_shown(value)} must be seconds; empty, null or inf if lost"
                raise _wrong(file, line, what) from None
        packets.append((line, times[_SENT], times[_ARRIVED]))
    return packets


def _delays(file: object, interval_s: float | None) -> list[float]:
    """Return the delay of each packet, s: arrival minus time of sending; infinity if lost."""
    packets = _times(file)
    if any(sent < math.inf for _, sent, _ in packets):
        if interval_s is not None:
            raise ConfigError(f"trace: {file} has {_SENT}: leave interval_s={interval_s:g} out")
        for line, sent, arrived in packets:
            if arrived < math.inf and not sent <= arrived:
                when = "is missing" if sent == math.inf else f"{sent:g} is after it"
                raise _wrong(file, line, f"{_ARRIVED}={arrived:g}, but {_SENT} {when}")
        return [arrived if arrived == math.inf else arrived - sent for _, sent, arrived in packets]
    if interval_s is None and packets:
        raise ConfigError(
            f"trace: {file} has no {_SENT}: give interval_s, seconds between two packets sent"
        )
    late = [arrived - i * (interval_s or 0.0) for i, (_, _, arrived) in enumerate(packets)]
    first = min(late, default=0.0)
    return [time if time == math.inf else time - first for time in late]
