"""A checkpoint of the user's is a codec through an adapter of twenty lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sqlink.codecs import codec_for_suffix, load_codec
from sqlink.codecs.base import Codec, Described, Rate, Received, Stream, Unreachable
from sqlink.errors import ConfigError, DataError, WeightsError

ADAPTER = """
import torch, zlib
from torch.nn.functional import avg_pool2d, interpolate

class Adapter:
    qualities = (8.0, 4.0, 2.0)   # pixels a side that share a colour: coarse to fine

    def __init__(self, weights, device):
        self.gain = float(weights["gain"])

    def encode(self, image, quality):
        small = avg_pool2d(image, int(quality), ceil_mode=True) * self.gain
        return bytes([int(quality)]) + zlib.compress((small * 255).round().byte().numpy().tobytes())

    def decode(self, data, height, width):
        step = data[0]
        shape = (1, 3, -(-height // step), -(-width // step))
        raw = bytearray(zlib.decompress(data[1:]))
        small = torch.frombuffer(raw, dtype=torch.uint8).reshape(shape).float() / 255 / self.gain
        return interpolate(small, scale_factor=step)[:, :, :height, :width]
"""
IMAGE = torch.rand(1, 3, 5, 6).repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(ADAPTER)
    save_file({"gain": torch.tensor(0.5)}, tmp_path / "mine.safetensors")
    return tmp_path


def made(folder: Path, **options: object) -> Codec:
    return load_codec(
        "torch",
        **{
            "adapter": f"{folder}/mine.py:Adapter",
            "weights": f"{folder}/mine.safetensors",
            **options,
        },
    )


def test_it_is_a_codec_fitted_to_a_budget(folder: Path) -> None:
    codec = made(folder)
    assert isinstance(codec, Codec)
    assert isinstance(codec, Described)
    assert codec_for_suffix(codec.suffix) == "torch"
    assert "3 qualities from 8 to 2" in codec.describe()["parameters"]
    (low,) = codec.encode(IMAGE, Rate(bytes=20))
    assert isinstance(low, Unreachable)
    (found,) = codec.encode(IMAGE, Rate(bytes=low.lowest_bytes))
    assert isinstance(found, Stream)
    assert found.size == low.lowest_bytes
    assert found.ledger["session"] == 32
    assert sum(found.ledger.values()) == 8 * found.size
    assert codec.parse(found.to_bytes()) == found
    decoded = codec.decode([Received.whole(found), Received(found.session, (None,))])
    assert decoded.outage.tolist() == [False, True]
    torch.testing.assert_close(decoded.images[0], IMAGE[0], rtol=0, atol=0.01)


def test_weights_of_pytorch_are_read_without_executing_anything(folder: Path) -> None:
    torch.save({"state_dict": {"gain": torch.tensor(0.25)}}, folder / "mine.pt")
    codec = made(folder, weights=f"{folder}/mine.pt")
    (found,) = codec.encode(IMAGE, Rate(quality=8))
    assert isinstance(found, Stream)

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (folder / "executed",))

    torch.save({"state_dict": Hostile()}, folder / "hostile.pt")
    with pytest.raises(WeightsError, match="cannot be read as weights alone"):
        made(folder, weights=f"{folder}/hostile.pt")
    assert not (folder / "executed").exists()


def test_other_weights_or_another_adapter_is_another_codec(folder: Path) -> None:
    hashes = {vars(made(folder))["weights_sha256"]}
    save_file({"gain": torch.tensor(0.75)}, folder / "mine.safetensors")
    hashes.add(vars(made(folder))["weights_sha256"])
    (folder / "mine.py").write_text(ADAPTER + "\n# changed\n")
    hashes.add(vars(made(folder))["weights_sha256"])
    assert len(hashes) == 3


def test_damaged_bytes_are_an_outage_or_refused(folder: Path) -> None:
    codec = made(folder)
    (found,) = codec.encode(IMAGE, Rate(quality=4))
    assert isinstance(found, Stream)
    whole = found.to_bytes()
    for at in range(0, len(whole) - 4, 5):
        data = bytearray(whole)
        data[4 + at] ^= 0x55
        decoded = codec.decode([Received(found.session, (bytes(data[4:]),))])
        assert decoded.images.isfinite().all()
    for bad in (b"", whole[:4], whole[:9]):
        with pytest.raises(DataError):
            codec.parse(bad)


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"adapter": "nothing"}, ConfigError, "must be file.py:Class or module:Class"),
        ({"adapter": "no_such_module_here:Adapter"}, ConfigError, "cannot be imported"),
        ({"adapter": "/nowhere/mine.py:Adapter"}, ConfigError, "there is no file"),
        ({"adapter": "json:Adapter"}, ConfigError, "has no class Adapter"),
        ({"adapter": "collections:Counter"}, ConfigError, "cannot be made|has no"),
        ({"weights": "/nowhere/w.safetensors"}, WeightsError, "cannot be read"),
        ({"weights": None}, ConfigError, "cannot be made of its weights"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    folder: Path, options: dict[str, object], error: type[Exception], line: str
) -> None:
    with pytest.raises(error, match=line) as found:
        made(folder, **options)
    assert "\n" not in str(found.value)


def test_weights_that_are_none_are_named(folder: Path) -> None:
    (folder / "bad.safetensors").write_bytes(b"text")
    with pytest.raises(WeightsError, match="is not safetensors"):
        made(folder, weights=f"{folder}/bad.safetensors")
    with pytest.raises(ConfigError, match="not one of the adapter's: 8, 4, 2"):
        made(folder).encode(IMAGE, Rate(quality=3))
