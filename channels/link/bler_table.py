"""Tables of block error rates over SNR, which are measured by full decoding and interpolated.

    table of a code ── in the package? ── in the user's cache? ── else measured once, and cached

A table has the numbers of errors and trials of packets over AWGN at each point. Its key contains
everything that affects the error rate: the code and its lengths, the modulation, the CRC and the
decoder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from channels.atomic_write import whole_file
from channels.base import Packets
from channels.errors import ConfigError
from channels.interpolation import interpolate
from channels.random import Randomness

if TYPE_CHECKING:
    from channels.link.coded import CodedLink

CACHE = "SQLINK_CACHE"
"""Environment variable with the folder of measured tables."""

FORMAT = 1
ERRORS = 400
"""The measurement of a point ends after this number of lost packets,"""
MOST = 10_000
"""or after this number of packets sent."""
LOWEST_BLER = 1e-2
"""A table ends below this rate."""

STEP_DB = 0.25
PACKETS_PER_TABLE = 29_000
"""Packets sent to measure a table: the mean over the tables of the package."""

_BATCH = 256
_TIMED_CODES = 3
_TIMED_BLOCKS = 128
_FINE_DB = 0.01
_TAIL = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlerTable:
    """A table of packets lost and packets sent at values of Es/N0.

    snr_db: rising. errors, trials: one integer per point.
    """

    snr_db: tuple[float, ...]
    errors: tuple[int, ...]
    trials: tuple[int, ...]

    def rate(self, snr_db: Tensor) -> Tensor:
        """Return the packet error rate at Es/N0 in dB, float64 of the same shape.

        Between and beyond the points the normal quantile of the rate is interpolated linearly in
        dB: at finite length it is nearly linear (Polyanskiy, Poor, Verdu 2010). The rate never
        rises with the SNR.
        """
        low, _, rates = _fine(self)
        fine = torch.as_tensor(rates, device=snr_db.device)
        between = interpolate(fine, low, _FINE_DB, snr_db.to(torch.float64))
        return torch.where(snr_db < low, torch.ones_like(between), between)

    def snr_at(self, rate: float) -> float:
        """Return the lowest Es/N0, in dB, at which the packet error rate is at most `rate`."""
        low, _, rates = _fine(self)
        return float(low + _FINE_DB * int(np.argmax(rates <= rate)))

    def to_json(self) -> dict[str, Any]:
        return {"snr_db": self.snr_db, "errors": self.errors, "trials": self.trials}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> BlerTable:
        """Make a table from the output of `to_json`. Raises ValueError if it is not a table."""
        try:
            table = cls(
                tuple(float(v) for v in content["snr_db"]),
                tuple(int(v) for v in content["errors"]),
                tuple(int(v) for v in content["trials"]),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a table of error rates: {error!r}") from error
        rows = list(zip(table.errors, table.trials, strict=True))
        rising = all(a < b for a, b in zip(table.snr_db, table.snr_db[1:], strict=False))
        if len(table.snr_db) != len(rows) or len(rows) < 2 or not rising:
            raise ValueError("a table of error rates needs two or more points of rising SNR")
        if not all(-100 <= snr <= 150 for snr in table.snr_db):
            raise ValueError("a table of error rates has an SNR outside -100 to 150 dB")
        if not all(0 <= e <= n and n > 0 for e, n in rows):
            raise ValueError("a table of error rates has more errors than trials")
        return table


@lru_cache(maxsize=256)
def _fine(table: BlerTable) -> tuple[float, float, Floats]:
    """Return the lowest and highest Es/N0 of rates from 1 to _TAIL, and the rates in steps of
    _FINE_DB.
    """
    from scipy.optimize import isotonic_regression
    from scipy.stats import norm

    x, n = np.array(table.snr_db), np.array(table.trials, dtype=np.float64)
    p = isotonic_regression(np.array(table.errors) / n, weights=n, increasing=False).x
    y = norm.isf(np.clip(p, 0.5 / n, 1 - 0.5 / n))
    slopes = np.diff(y) / np.diff(x)
    ends = max(slopes[0], 0.2), max(slopes[-1], 0.2)
    low = x[0] - (y[0] - norm.isf(1 - 1e-6)) / ends[0]
    high = x[-1] + max(0.0, norm.isf(_TAIL) - y[-1]) / ends[1]
    low = math.floor(min(low, x[0]) / _FINE_DB) * _FINE_DB
    count = math.ceil((high - low) / _FINE_DB) + 2
    at = low + _FINE_DB * np.arange(count)
    found = np.interp(at, x, y)
    found = np.where(at < x[0], y[0] - (x[0] - at) * ends[0], found)
    found = np.where(at > x[-1], y[-1] + (at - x[-1]) * ends[1], found)
    rates = np.clip(norm.sf(found), _TAIL, 1.0)
    return float(low), float(at[-1]), rates


def digest(tables: Sequence[BlerTable]) -> str:
    """Return the SHA-256 of the numbers of some tables, in their order."""
    text = json.dumps([table.to_json() for table in tables])
    return hashlib.sha256(text.encode()).hexdigest()


def identity(link: CodedLink) -> dict[str, Any]:
    """Return everything that affects a link's error rate over AWGN, as JSON values."""
    plan = link.layout
    decoder = (
        {"list_size": link.list_size}
        if link.code == "polar"
        else {"iterations": link.iterations, "schedule": link.schedule}
    )
    return {
        "format": FORMAT,
        "code": link.code,
        "layout": [plan.bits, plan.blocks, plan.k, plan.n, plan.words],
        "modulation": link.modulation,
        "crc": link.crc,
        "input": link.input,
        **decoder,
    }


def key(link: CodedLink) -> str:
    """Return the key of a link's table: 16 hexadecimal digits of a hash of its identity."""
    text = json.dumps(identity(link), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of tables: $SQLINK_CACHE, else sqlink in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(CACHE)
    if named:
        return Path(named) / "bler"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sqlink" / "bler"


def table_of(link: CodedLink, progress: Callable[[str], None] | None = None) -> BlerTable:
    """Return the table of a coded link's code, modulation, CRC and decoder over AWGN.

    A table that is neither in the package nor in the cache is measured, which takes minutes.
    progress: called every 256 packets. Raises ConfigError if a table in the cache is damaged.
    """
    name = key(link)
    shipped = _shipped().get(name)
    if shipped is not None:
        return shipped
    path = cache_folder() / f"{name}.json"
    try:
        return _parsed(path, path.stat().st_mtime, json.dumps(identity(link)))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(path.parent, error) from error
    _prepared(path.parent)
    table = measure(link, progress=progress)
    write(path, link, table)
    return table


@lru_cache(maxsize=1)
def _shipped() -> Mapping[str, BlerTable]:
    """Return the tables of the package, by their key."""
    content = json.loads(files("channels.link").joinpath("bler_tables.json").read_text("utf-8"))
    return {name: BlerTable.from_json(table) for name, table in content["tables"].items()}


@lru_cache(maxsize=256)
def _parsed(path: Path, _modified: float, of: str) -> BlerTable:
    """Return the table in a file, if its identity is `of`. Raises ConfigError if it is not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table = BlerTable.from_json(content)
        if content.get("of") != json.loads(of):
            raise ValueError("it belongs to another code")
    except OSError as error:
        raise _unusable(path.parent, error) from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ConfigError(
            f"{path} is not a table of error rates ({reason}): delete the file to measure it again"
        ) from error
    return table


def _unusable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{folder}: tables of error rates cannot be kept here: {error.strerror or error}: "
        f"name a folder that can be used in {CACHE}"
    )


def _prepared(folder: Path) -> None:
    """Make the folder. Raises ConfigError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unusable(folder, error) from error


def write(path: Path, link: CodedLink, table: BlerTable) -> None:
    """Write a table to a file. Raises ConfigError if the folder cannot be used."""
    content = json.dumps({"of": identity(link), **table.to_json()})
    _prepared(path.parent)
    try:
        with whole_file(path) as aside:
            aside.write_text(content, encoding="utf-8")
    except OSError as error:
        raise _unusable(path.parent, error) from error


def tables_of(links: Sequence[CodedLink], owner: str) -> list[BlerTable]:
    """Return the tables of several links.

    Before a measurement, one line on standard error names the codes, the expected time and the
    folder of the tables; then the progress follows. Raises ConfigError as `table_of` does.
    """
    missing = [link for link in links if not known(link)]
    if missing:
        _prepared(cache_folder())
        print(
            f"{owner}: measuring {_listed(missing)} once, by full decoding, "
            f"about {_spoken(expected_s(missing))}; kept in {cache_folder()} (${CACHE} sets it)",
            file=sys.stderr,
            flush=True,
        )
    tell = Teller(len(missing))
    found = []
    for link in links:
        tell.number += link in missing
        found.append(table_of(link, tell))
    return found


def _listed(links: Sequence[CodedLink]) -> str:
    """Return the number of codes and their names, in words."""
    rates: dict[str, list[str]] = {}
    for link in links:
        rates.setdefault(str(link.modulation), []).append(f"{link.code_rate:.3f}")
    each = "; ".join(f"{modulation} {', '.join(of)}" for modulation, of in rates.items())
    return f"{len(links)} code{'s' if len(links) > 1 else ''} (modulation and code rate: {each})"


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return "a minute"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def expected_s(links: Sequence[CodedLink]) -> float:
    """Estimate the seconds needed to measure some links on this machine, from trials of a few."""
    count = min(_TIMED_CODES, len(links))
    tried = [links[i * (len(links) - 1) // max(1, count - 1)] for i in range(count)]
    per_packet = []
    for number, link in enumerate(tried):
        over_awgn, guess_db = link.over_awgn(), _first_db(link)
        packets = max(1, _TIMED_BLOCKS // link.layout.blocks)
        if number == 0:
            lost(over_awgn, guess_db, 0, 1)  # leaves loading and building out of the measured time
        start = time.perf_counter()
        lost(over_awgn, guess_db, 0, packets)
        per_packet.append((time.perf_counter() - start) / packets)
    return PACKETS_PER_TABLE * len(links) * sum(per_packet) / count


class Teller:
    """A printer of progress that limits the number of lines; fewer without a terminal.

    of: number of codes to measure. number: number of the present code.
    """

    WATCHED_S = 2.0
    UNWATCHED_S = 30.0

    def __init__(self, of: int) -> None:
        self.of = of
        self.number = 0
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= (self.WATCHED_S if sys.stderr.isatty() else self.UNWATCHED_S):
            self._last = now
            print(f"  code {self.number} of {self.of}: {text}", file=sys.stderr, flush=True)


def known(link: CodedLink) -> bool:
    """Return whether the link's table is in the package or in the cache."""
    name = key(link)
    try:
        return name in _shipped() or (cache_folder() / f"{name}.json").exists()
    except OSError:
        return False


def lost(link: CodedLink, snr_db: float, first: int, count: int, seed: int = 0) -> int:
    """Send `count` packets of random bytes at an Es/N0, and return the number of lost packets.

    first: number of the first packet, for the random numbers. Each packet is a link of its own, so
    that losses are independent also under fading.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    randomness = Randomness.derive(
        seed, [("bler", key(link), n) for n in range(first, first + count)]
    )
    randomness = randomness.to(device)
    data = randomness.child("payload").integers(link.packet_bytes) & 0xFF
    packets = Packets(
        data.to(torch.uint8)[:, None],
        torch.full((count, 1), link.packet_bytes, device=device),
        torch.zeros(count, 1, dtype=torch.int64, device=device),
    )
    snr = torch.full((count,), snr_db, dtype=torch.float64, device=device)
    came = link.transmit(packets, {"snr_db": snr}, randomness.child("channel"))
    return count - int(came.correct.sum())


def _first_db(link: CodedLink) -> float:
    """Return the Es/N0 to begin at, dB: 1 dB above the capacity limit of Gaussian input."""
    efficiency = link.bits_per_symbol * link.layout.code_rate
    return 10 * math.log10(2**efficiency - 1) + 1.0


def measure(
    link: CodedLink,
    errors: int = ERRORS,
    most: int = MOST,
    lowest: float = LOWEST_BLER,
    step_db: float = STEP_DB,
    progress: Callable[[str], None] | None = None,
) -> BlerTable:
    """Measure a table by full decoding over AWGN, from a packet error rate of 1 to `lowest`.

    The measurement of a point ends after `errors` lost packets or `most` packets sent.
    """
    over_awgn = link.over_awgn()

    def point(snr_db: float) -> tuple[int, int]:
        wrong = sent = 0
        while wrong < errors and sent < most:
            batch = min(_BATCH, most - sent)
            wrong += lost(over_awgn, snr_db, sent, batch)
            sent += batch
            if progress is not None:
                progress(
                    f"{link.modulation}, code rate {link.code_rate:.3f}, {snr_db:+.2f} dB: "
                    f"{wrong} of {sent} packets lost"
                )
        return wrong, sent

    found: dict[float, tuple[int, int]] = {}
    snr_db = round(_first_db(link) / step_db) * step_db
    while True:  # until nearly all packets are lost
        found[snr_db] = point(snr_db)
        if found[snr_db][0] >= 0.98 * found[snr_db][1]:
            break
        snr_db -= step_db
    snr_db = max(found) + step_db
    while (last := found[max(found)])[0] > lowest * last[1]:
        found[snr_db] = point(snr_db)
        snr_db += step_db
    at = sorted(found)
    return BlerTable(
        tuple(at), tuple(found[snr][0] for snr in at), tuple(found[snr][1] for snr in at)
    )


def ship(links: Sequence[CodedLink], progress: Callable[[str], None] | None = None) -> str:
    """Return the text of bler_tables.json for some links, from the cache or measured."""
    tables = {
        key(link): {"of": identity(link), **table_of(link, progress).to_json()} for link in links
    }
    lines = ",\n".join(f'"{name}": {json.dumps(table)}' for name, table in tables.items())
    return f'{{"tables": {{\n{lines}\n}}}}\n'
