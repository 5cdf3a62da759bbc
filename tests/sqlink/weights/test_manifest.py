"""Weights files: round trips, the manifest's word, and what a damaged file is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sqlink.errors import WeightsError
from sqlink.weights import manifest


def tensors() -> dict[str, Tensor]:
    return {
        "conv.weight": torch.linspace(-2, 2, 24).reshape(2, 3, 4),
        "tables.counts": torch.arange(1, 9, dtype=torch.int64),
        "shared.view": torch.ones(6).reshape(2, 3).t(),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "net.safetensors"
    manifest.save(path, tensors(), {"kind": "sqgan", "config": "tiny"})
    return path


@pytest.fixture
def shipped(tmp_path: Path, file: Path) -> Path:
    folder = tmp_path / "weights"
    manifest.ship(
        file,
        name="tiny",
        kind="sqgan",
        licence="Apache-2.0",
        data="none",
        training="none",
        folder=folder,
    )
    return folder


def refused(call: object, *fragments: str) -> str:
    """The one line with which a call is refused, which holds all the fragments."""
    with pytest.raises(WeightsError) as caught:
        call()  # type: ignore[operator]
    line = str(caught.value)
    assert "\n" not in line
    for fragment in fragments:
        assert fragment in line
    return line


def test_a_users_file_comes_back_with_its_metadata(file: Path) -> None:
    loaded = manifest.load(file, "sqgan")
    assert loaded.metadata == {"kind": "sqgan", "config": "tiny"}
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    for name, tensor in tensors().items():
        assert loaded.tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(loaded.tensors[name], tensor, rtol=1e-3, atol=0)


def test_full_precision_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    manifest.save(path, tensors(), {"kind": "sqgan"}, dtype=torch.float32)
    assert torch.equal(
        manifest.load(path, "sqgan").tensors["conv.weight"], tensors()["conv.weight"]
    )


def test_a_shipped_name_loads_and_is_listed(shipped: Path) -> None:
    assert manifest.names("sqgan", shipped) == ["tiny"]
    loaded = manifest.load("tiny", "sqgan", shipped)
    assert loaded.sha256 == manifest.entries(shipped)[0].sha256


def test_shipping_again_replaces_the_entry(shipped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    manifest.save(other, {"a": torch.ones(2)}, {"kind": "sqgan"})
    manifest.ship(
        other,
        name="tiny",
        kind="sqgan",
        licence="Apache-2.0",
        data="-",
        training="-",
        folder=shipped,
    )
    assert len(manifest.entries(shipped)) == 1
    assert set(manifest.load("tiny", "sqgan", shipped).tensors) == {"a"}


def test_a_shipped_file_that_was_changed_is_refused(shipped: Path) -> None:
    path = shipped / "sqgan-tiny.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    refused(lambda: manifest.load("tiny", "sqgan", shipped), "SHA-256", str(path))


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_truncated_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    refused(lambda: manifest.load(file, "sqgan"), str(file), "safetensors")


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "evil.safetensors"
    torch.save({"a": torch.ones(1)}, path)
    refused(lambda: manifest.load(path, "sqgan"), str(path))


def test_the_wrong_kind_is_refused(file: Path) -> None:
    refused(lambda: manifest.load(file, "segmenter"), "'sqgan'", "'segmenter'")


def test_an_unknown_name_is_told_the_nearest(shipped: Path) -> None:
    refused(lambda: manifest.load("tinny", "sqgan", shipped), "did you mean 'tiny'?")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    refused(lambda: manifest.load(tmp_path / "no.safetensors", "sqgan"), "no.safetensors")
    refused(lambda: manifest.load(str(tmp_path / "no.safetensors"), "sqgan"), "no.safetensors")


def test_a_damaged_manifest_is_refused(shipped: Path) -> None:
    (shipped / "manifest.json").write_text('{"files": [{"name": 1}]}')
    refused(lambda: manifest.load("tiny", "sqgan", shipped), "manifest.json")


def test_values_that_half_precision_cannot_hold_are_refused_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.safetensors"
    refused(
        lambda: manifest.save(path, {"big": torch.tensor([1e6])}, {"kind": "sqgan"}),
        "big",
        "finite",
    )
    assert list(tmp_path.iterdir()) == []


def test_weights_must_say_their_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind"):
        manifest.save(tmp_path / "w.safetensors", {}, {})


def test_every_shipped_file_is_as_its_entry_says() -> None:
    for entry in manifest.entries():
        assert (manifest.FOLDER / entry.file).stat().st_size == entry.bytes
        assert manifest.load(entry.name, entry.kind).sha256 == entry.sha256
        assert entry.licence
        assert entry.data
        assert entry.training


def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["add", str(tmp_path / "no.safetensors"), "--name", "x", "--kind", "sqgan"]
    arguments += ["--licence", "-", "--data", "-", "--training", "-"]
    assert manifest.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
