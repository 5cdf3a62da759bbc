"""What one sweep coded, the next one finds, and never anything else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments.sweep.cache import Cache, original_bytes, original_of, stream_bytes, stream_of
from experiments.sweep.measuring import Original
from experiments.sweep.runner import run_sweep
from sqlink.codecs.base import Unreachable
from sqlink.data.classes import NO_LABEL
from sqlink.errors import ConfigError

Write = Callable[..., Path]
Same = Callable[[Path, Path], None]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("??/*") if path.is_file())


def test_another_folder_and_another_channel_code_nothing_again(
    write: Write, same: Same, mosaic: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, cache = write(), tmp_path / "cache"
    plain = run_sweep(path, tmp_path / "plain", progress=False)
    same(plain, run_sweep(path, tmp_path / "first", progress=False, cache=cache))
    mosaic.encoded = mosaic.decoded = 0
    same(plain, run_sweep(path, tmp_path / "second", progress=False, cache=cache))
    assert mosaic.encoded == 0
    assert "encodings 9 of 9, originals 3 of 3" in capsys.readouterr().err
    text = path.read_text()
    other = write(text.replace("iid", "bursts").replace("[0.0, 0.3, 0.9]", "0.4"), "other.yaml")
    mosaic.decoded = 0
    cached = run_sweep(other, tmp_path / "other", progress=False, cache=cache)
    assert mosaic.encoded == 0
    with_cache = mosaic.decoded
    mosaic.decoded = 0
    same(cached, run_sweep(other, tmp_path / "anew", progress=False))
    assert with_cache < mosaic.decoded


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("count: 3", "count: 3, height: 48"),
        ("packet_bytes: 32", "packet_bytes: 36"),
        ("[2, 120, 400]", "[3, 121, 401]"),
    ],
)
def test_whatever_changes_an_encoding_makes_another_entry(
    write: Write, mosaic: type, tmp_path: Path, old: str, new: str
) -> None:
    cache = tmp_path / "cache"
    run_sweep(write(), tmp_path / "first", progress=False, cache=cache)
    mosaic.encoded = 0
    text = write().read_text().replace(old, new)
    run_sweep(write(text, "other.yaml"), tmp_path / "other", progress=False, cache=cache)
    assert mosaic.encoded == 9


def test_a_damaged_entry_is_computed_again(
    write: Write, same: Same, mosaic: type, tmp_path: Path
) -> None:
    path, cache = write(), tmp_path / "cache"
    plain = run_sweep(path, tmp_path / "first", progress=False, cache=cache)
    entries = _entries(cache)
    for n, entry in enumerate(entries):
        data = bytearray(entry.read_bytes())
        if n % 3 == 0:
            data[-1] ^= 1
        entry.write_bytes(data if n % 3 != 1 else data[: len(data) // 2])
    mosaic.encoded = 0
    same(plain, run_sweep(path, tmp_path / "second", progress=False, cache=cache))
    assert 0 < mosaic.encoded <= 9
    assert _entries(cache) == entries
    mosaic.encoded = 0
    run_sweep(path, tmp_path / "third", progress=False, cache=cache)
    assert mosaic.encoded == 0


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10_000)
    names = [f"{n:02d}" + "0" * 62 for n in range(40)]
    for n, name in enumerate(names):
        cache.put(name, bytes(500))
        path = tmp_path / name[:2] / name[2:]
        if path.exists():
            os.utime(path, (n, n))
    assert cache.get("any", names[-1]) == bytes(500)
    cache.put("ff" + "0" * 62, bytes(500))
    cache.trim()
    left = _entries(tmp_path)
    assert sum(path.stat().st_size for path in left) <= 10_000
    assert cache.get("any", names[0]) is None
    assert cache.get("any", names[-1]) == bytes(500)


def test_a_full_disk_ends_the_caching_and_not_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cache = Cache(tmp_path, say=said.append)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put("aa" * 32, b"data")
    cache.put("bb" * 32, b"data")
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert cache.get("any", "aa" * 32) is None
    assert not _entries(tmp_path)


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="name another folder with --cache"):
        Cache(tmp_path / "file" / "cache")


def test_answers_and_maps_come_back_as_they_were() -> None:
    lowest = Unreachable("codec", 16, 32, 10, 20)
    assert stream_of(stream_bytes(lowest)) == lowest
    labels = torch.randint(0, 11, (6, 9))
    labels[0, 0] = NO_LABEL
    sent, original = original_of(original_bytes(labels, Original(None, {"counts": [3, 4]})))
    assert sent is not None
    assert torch.equal(sent, labels)
    assert original == Original(None, {"counts": [3, 4]})
