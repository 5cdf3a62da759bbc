"""Rate control: a search for the finest of a codec's settings within a budget.

    setting    0 ──── 1 ──── 2 ─ ... ─ n-1        coarse to fine
    bytes    553    601    672       41 200       each encoded at most once, when needed

A codec has few settings (52 QPs, 101 qualities), and bytes grow with them with few exceptions. The
search brackets the budget between a setting that fits and one that does not, until they are
neighbours. So the answer is exact for any curve: it fits, and the next finer setting was tried and
does not fit.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_MOST_BYTES = 64 << 20
"""Largest total size of the files that all ladders keep, in bytes."""
_INTERPOLATIONS = 4
"""Settings tried by interpolation before the search bisects."""


class Ladder:
    """The files of one picture by setting, each encoded once.

    >>> ladder = Ladder(lambda setting: bytes(10 + setting))
    >>> ladder.size(3), ladder.file(3) == bytes(13), ladder.held, ladder.encoded
    (13, True, 13, [3])
    """

    def __init__(self, code: Callable[[int], bytes]) -> None:
        """Make a ladder; code: function that encodes the picture at a setting."""
        self._code = code
        self._files: dict[int, bytes] = {}

    def file(self, setting: int) -> bytes:
        """Return the file at a setting."""
        if setting not in self._files:
            self._files[setting] = self._code(setting)
        return self._files[setting]

    def size(self, setting: int) -> int:
        """Return the bytes of the file at a setting."""
        return len(self.file(setting))

    @property
    def encoded(self) -> list[int]:
        """Settings encoded so far, coarse to fine."""
        return sorted(self._files)

    @property
    def held(self) -> int:
        """Bytes of all files encoded so far."""
        return sum(len(file) for file in self._files.values())


class Ladders:
    """The ladders of the last pictures: budgets of one picture share its files."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._ladders: OrderedDict[bytes, Ladder] = OrderedDict()

    def of(self, picture: Pixels, code: Callable[[Pixels, int], bytes]) -> Ladder:
        """Return the ladder of a picture, uint8 [H, W, 3]; recent ladders are reused."""
        key = hashlib.sha256(f"{picture.shape}".encode() + picture.tobytes()).digest()
        ladder = self._ladders.pop(key, None)
        if ladder is None:
            own = picture.copy()
            ladder = Ladder(lambda setting: code(own, setting))
        self._ladders[key] = ladder
        while len(self._ladders) > 1 and self._held() > self._most:
            self._ladders.popitem(last=False)
        return ladder

    def _held(self) -> int:
        return sum(ladder.held for ladder in self._ladders.values())


def finest_setting(
    size: Callable[[int], int],
    budget: int,
    count: int,
    typical: Sequence[tuple[float, float]] = (),
    beyond: int = 0,
) -> int | None:
    """Return the finest of `count` settings whose file fits the budget; None if setting 0 does not.

    size: returns the bytes of the file at a setting; each call may be an encoding. typical:
    (setting, bytes) of a similar picture, both rising; it only determines where the search starts.
    beyond: number of settings tried above the first that is too large, for small pictures whose
    bytes do not always grow.

    >>> finest_setting(lambda setting: 100 * (setting + 1), 450, 50)
    3
    """
    target = math.log(max(budget, 1))
    fits, exceeds = -1, count
    known: dict[int, float] = {}
    shift = 0.0
    while exceeds - fits > 1:
        if len(known) < _INTERPOLATIONS and fits in known and exceeds in known:
            slope = (known[exceeds] - known[fits]) / (exceeds - fits)
            guess = fits + (target - known[fits]) / slope if slope > 0 else fits + 1.0
        elif len(known) < _INTERPOLATIONS and typical:
            settings = [setting for setting, _ in typical]
            sizes = [math.log(typed) for _, typed in typical]
            guess = float(np.interp(target - shift, sizes, settings))
        else:
            guess = (fits + exceeds) / 2
        setting = min(max(math.floor(guess), fits + 1), exceeds - 1)
        known[setting] = math.log(max(size(setting), 1))
        if typical:
            settings = [setting for setting, _ in typical]
            sizes = [math.log(typed) for _, typed in typical]
            shift = known[setting] - float(np.interp(setting, settings, sizes))
        if size(setting) <= budget:
            fits = setting
        else:
            exceeds = setting
    for setting in range(min(exceeds + beyond, count - 1), exceeds, -1):
        if size(setting) <= budget:
            return setting
    return fits if fits >= 0 else None
