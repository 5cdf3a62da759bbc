"""Full memory, full disks, unwritable folders, pictures that are gone: one line each."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from channels import atomic_write
from experiments.sweep.batch import Batch
from experiments.sweep.runner import run_sweep
from sqlink.codecs.base import Decoded, Rate, Received, Stream, Unreachable
from sqlink.data import open_dataset
from sqlink.data.pictures import save_picture
from sqlink.errors import ConfigError, DataError

Write = Callable[..., Path]
Same = Callable[[Path, Path], None]


def _limited(monkeypatch: pytest.MonkeyPatch, mosaic: type, fits: int) -> list[int]:
    """Give the codec a GPU that holds `fits` pictures at once; returns the batches it was given."""
    encode, decode, given = mosaic.encode, mosaic.decode, []

    def checked(count: int) -> None:
        given.append(count)
        if count > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def encode_some(
        self: object, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        checked(len(images))
        answers: list[Stream | Unreachable] = encode(self, images, rate, segmentation)
        return answers

    def decode_some(self: object, received: Sequence[Received]) -> Decoded:
        checked(len(received))
        decoded: Decoded = decode(self, received)
        return decoded

    monkeypatch.setattr(mosaic, "encode", encode_some)
    monkeypatch.setattr(mosaic, "decode", decode_some)
    return given


def test_a_batch_that_does_not_fit_is_halved_and_the_table_is_the_same(
    write: Write,
    same: Same,
    mosaic: type,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(write().read_text().replace("count: 3", "count: 7"))
    whole = run_sweep(path, tmp_path / "whole", batch_size=7, progress=False)
    given = _limited(monkeypatch, mosaic, fits=2)
    same(whole, run_sweep(path, tmp_path / "small", batch_size=7, progress=False))
    said = capsys.readouterr().err
    assert "out of GPU memory: going on with batches of 3 (were 7)" in said
    assert "out of GPU memory: going on with batches of 1 (were 3)" in said
    assert said.count("out of GPU memory") == 2  # once halved, it stays
    assert given.count(7) == 1


def test_a_single_picture_that_does_not_fit_is_said_in_one_line(
    write: Write, mosaic: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limited(monkeypatch, mosaic, fits=0)
    with pytest.raises(ConfigError, match="does not hold one picture: use device: cpu") as error:
        run_sweep(write(), tmp_path / "out", progress=False)
    assert "\n" not in str(error.value)


def test_other_errors_pass_through_a_batch() -> None:
    def broken(part: Sequence[int]) -> Sequence[int]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Batch(4, print).over([1, 2], broken)


def test_a_full_disk_keeps_what_is_there_and_the_sweep_goes_on_later(
    write: Write, same: Same, mosaic: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = write(), tmp_path / "out"
    rename, writes = atomic_write.os.replace, 0

    def fills_up(source: Path, target: Path) -> None:
        nonlocal writes
        writes += target.suffix == ".parquet"
        if writes > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        rename(source, target)

    monkeypatch.setattr(atomic_write.os, "replace", fills_up)
    with pytest.raises(ConfigError, match="No space left on device") as error:
        run_sweep(path, folder, progress=False)
    assert "\n" not in str(error.value)
    assert len(list(folder.glob("parts/*.parquet"))) == 2
    assert not list(folder.rglob(f"*{atomic_write.SUFFIX}"))
    monkeypatch.setattr(atomic_write.os, "replace", rename)
    mosaic.encoded = 0
    run_sweep(path, folder, progress=False)
    assert mosaic.encoded < 9
    same(folder, run_sweep(path, tmp_path / "whole", progress=False))


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_coded(
    write: Write, mosaic: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        run_sweep(write(), tmp_path / "file" / "out", progress=False)

    def read_only(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        run_sweep(write(), tmp_path / "out", progress=False)
    assert mosaic.encoded == 0


def test_a_picture_deleted_on_the_way_is_named_and_the_others_rows_are_kept(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    for n in range(3):
        (sample,) = open_dataset("streets", seed=n, count=1, height=32, width=48)
        save_picture(sample.image, folder / f"{n}.png")
    path = write(
        f"data: {{name: folder, options: {{root: {folder}}}}}\ncodecs: [jpeg2000]\n"
        "rates: {bpp: [1, 2]}\nchannel: lossless\nmetrics: [psnr]\nbatch_size: 1\n"
    )
    replace = atomic_write.os.replace

    def delete_after_the_first_part(source: Path, target: Path) -> None:
        replace(source, target)
        (folder / "2.png").unlink(missing_ok=True)

    monkeypatch.setattr(atomic_write.os, "replace", delete_after_the_first_part)
    with pytest.raises(DataError, match=r"2\.png does not exist") as error:
        run_sweep(path, tmp_path / "out", progress=False)
    assert "\n" not in str(error.value)
    assert len(list((tmp_path / "out" / "parts").glob("*.parquet"))) == 4


def test_a_quality_that_a_codec_lacks_is_said_before_anything_is_coded(
    write: Write, tmp_path: Path
) -> None:
    text = "{data: streets, channel: lossless, metrics: [psnr], codecs: [jpeg2000, %s]}"
    own = "{name: jpeg, rates: {quality: [50, 900]}}"
    path = write(text.replace("channel", "rates: {bpp: 1}, channel") % own)
    with pytest.raises(ConfigError, match=r"codecs\[1\]\.rates: jpeg quality=900"):
        run_sweep(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "parts").exists()
    path = write(text.replace("channel", "rates: {quality: [0.5, 2]}, channel") % "sqgan")
    path.write_text(path.read_text().replace("jpeg2000, ", ""))
    with pytest.raises(ConfigError, match=r"yaml: rates: sqgan quality=2"):
        run_sweep(path, tmp_path / "out", progress=False)
