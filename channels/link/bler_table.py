"""Block error rates over SNR: measured by full decoding, cached, interpolated between the points.

    table of a code ── in the package? ── in the user's cache? ── else measured once, and cached

A table counts errors and trials of packets over AWGN at each point. Its key is everything that the
error rate depends on: the code and its lengths, the modulation, the CRC and the decoder.
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
"""Environment variable: the folder of measured tables."""

FORMAT = 1
ERRORS = 400
"""A point is measured until so many packets were lost,"""
MOST = 10_000
"""or so many were sent."""
LOWEST_BLER = 1e-2
"""A table ends below this rate."""

STEP_DB = 0.25
PACKETS_PER_TABLE = 29_000
"""Packets needed for a table: the mean over the tables that come with the package."""

_BATCH = 256
_TIMED_CODES = 3
_TIMED_BLOCKS = 128
_FINE_DB = 0.01
_TAIL = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlerTable:
    """Packets lost out of packets sent, by Es/N0.

    snr_db: rising. errors, trials: integers, one a point.
    """

    snr_db: tuple[float, ...]
    errors: tuple[int, ...]
    trials: tuple[int, ...]

    def rate(self, snr_db: Tensor) -> Tensor:
        """Return the probability of losing a packet at Es/N0 in dB, float64, of the same shape.

        Between and beyond the points the normal quantile of the rate is interpolated linearly in
        dB, as it is nearly linear at finite length (Polyanskiy, Poor, Verdu 2010). It never rises.
        """
        low, _, rates = _fine(self)
        fine = torch.as_tensor(rates, device=snr_db.device)
        between = interpolate(fine, low, _FINE_DB, snr_db.to(torch.float64))
        return torch.where(snr_db < low, torch.ones_like(between), between)

    def snr_at(self, rate: float) -> float:
        """Return the lowest Es/N0, in dB, at which no more than that share of packets is lost."""
        low, _, rates = _fine(self)
        return float(low + _FINE_DB * int(np.argmax(rates <= rate)))

    def to_json(self) -> dict[str, Any]:
        return {"snr_db": self.snr_db, "errors": self.errors, "trials": self.trials}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> BlerTable:
        """Read what `to_json` wrote. Raises ValueError if it is not a table."""
        try:
            table = cls(
                tuple(float(v) for v in content["snr_db"]),
                tuple(int(v) for v in content["errors"]),
                tuple(int(v) for v in content["trials"]),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no table of error rates: {error!r}") from error
        rows = list(zip(table.errors, table.trials, strict=True))
        rising = all(a < b for a, b in zip(table.snr_db, table.snr_db[1:], strict=False))
        if len(table.snr_db) != len(rows) or len(rows) < 2 or not rising:
            raise ValueError("a table of error rates has two or more points of rising SNR")
        if not all(-100 <= snr <= 150 for snr in table.snr_db):
            raise ValueError("a table of error rates has an SNR out of -100 to 150 dB")
        if not all(0 <= e <= n and n > 0 for e, n in rows):
            raise ValueError("a table of error rates has more errors than trials")
        return table


@lru_cache(maxsize=256)
def _fine(table: BlerTable) -> tuple[float, float, Floats]:
    """Return the lowest and highest Es/N0, and the rates at every _FINE_DB between: from 1 to
    _TAIL.
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
    """Return the SHA-256 of the numbers of tables, in their order."""
    text = json.dumps([table.to_json() for table in tables])
    return hashlib.sha256(text.encode()).hexdigest()


def identity(link: CodedLink) -> dict[str, Any]:
    """Return everything that a link's error rate over AWGN depends on, as JSON values."""
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
    """Return 16 hexadecimal digits of the identity."""
    text = json.dumps(identity(link), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of tables: $SQLINK_CACHE, else sqlink in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(CACHE)
    if named:
        return Path(named) / "bler"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sqlink" / "bler"


def table_of(link: CodedLink, progress: Callable[[str], None] | None = None) -> BlerTable:
    """Return the table of a coded link's code, modulation, CRC and decoder; its channel does not
    matter.

    A table that is neither shipped nor cached is measured, which takes minutes. progress: called
    every 256 packets. Raises ConfigError if a table in the cache is damaged.
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
    """Read the tables that come with the package, by their key."""
    content = json.loads(files("channels.link").joinpath("bler_tables.json").read_text("utf-8"))
    return {name: BlerTable.from_json(table) for name, table in content["tables"].items()}


@lru_cache(maxsize=256)
def _parsed(path: Path, _modified: float, of: str) -> BlerTable:
    """Read the table in a file and check that it is of the identity `of`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table = BlerTable.from_json(content)
        if content.get("of") != json.loads(of):
            raise ValueError("it is of another code")
    except OSError as error:
        raise _unusable(path.parent, error) from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ConfigError(
            f"{path}: no table of error rates ({reason}): delete the file, it is measured anew"
        ) from error
    return table


def _unusable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{folder}: tables of error rates cannot be kept here: {error.strerror or error}: "
        f"name a folder that can be used in {CACHE}"
    )


def _prepared(folder: Path) -> None:
    """Make the folder, and see that it can be written. Raises ConfigError if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unusable(folder, error) from error


def write(path: Path, link: CodedLink, table: BlerTable) -> None:
    """Keep a table. Raises ConfigError if the folder cannot be used."""
    content = json.dumps({"of": identity(link), **table.to_json()})
    _prepared(path.parent)
    try:
        with whole_file(path) as aside:
            aside.write_text(content, encoding="utf-8")
    except OSError as error:
        raise _unusable(path.parent, error) from error


def tables_of(links: Sequence[CodedLink], owner: str) -> list[BlerTable]:
    """Return the tables of several links.

    Before measuring, prints one line on standard error: which codes, about how long, and where the
    tables are kept; then progress from time to time. Raises ConfigError as `table_of` does.
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
    """Say in words how many codes, and which."""
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
    """Estimate the seconds that it takes to measure some links here, by trying a few of them."""
    count = min(_TIMED_CODES, len(links))
    tried = [links[i * (len(links) - 1) // max(1, count - 1)] for i in range(count)]
    per_packet = []
    for number, link in enumerate(tried):
        over_awgn, guess_db = link.over_awgn(), _first_db(link)
        packets = max(1, _TIMED_BLOCKS // link.layout.blocks)
        if number == 0:
            lost(over_awgn, guess_db, 0, 1)  # what is loaded and built once does not count
        start = time.perf_counter()
        lost(over_awgn, guess_db, 0, packets)
        per_packet.append((time.perf_counter() - start) / packets)
    return PACKETS_PER_TABLE * len(links) * sum(per_packet) / count


class Teller:
    """Prints the progress of a measurement, at most one line in so many seconds, fewer without a
    terminal.

    of: codes to measure. number: of the code at hand.
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
    """Say whether the link's table came with the package or was measured before."""
    name = key(link)
    try:
        return name in _shipped() or (cache_folder() / f"{name}.json").exists()
    except OSError:
        return False


def lost(link: CodedLink, snr_db: float, first: int, count: int, seed: int = 0) -> int:
    """Send packets of random bytes, numbers first..first + count, and return those lost at an
    Es/N0.

    Each is its own link, so that their fates are independent under fading, too.
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
    """Return the Es/N0 to begin at: a decibel above what Gaussian input of that efficiency
    needs.
    """
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
    """Measure by full decoding over AWGN from where all packets are lost down to the rate `lowest`.

    A point is measured until `errors` packets were lost or `most` were sent.
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
    while True:  # down to where nearly all is lost
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
    """Return the text of bler_tables.json for some links, taken from the cache or measured."""
    tables = {
        key(link): {"of": identity(link), **table_of(link, progress).to_json()} for link in links
    }
    lines = ",\n".join(f'"{name}": {json.dumps(table)}' for name, table in tables.items())
    return f'{{"tables": {{\n{lines}\n}}}}\n'
