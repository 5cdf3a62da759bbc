"""The codec `torch`: the user's learned codec, from a checkpoint and an adapter.

    codecs:
      - name: torch
        options: {adapter: my_codec.py:Adapter, weights: my_codec.safetensors}

The adapter is a class of some twenty lines in a Python file, or `module:Class`:

    class Adapter:
        qualities = (1.0, 2.0, 4.0)                      # coarse to fine
        def __init__(self, weights, device):             # weights: name -> tensor
            self.net = MyNetwork().to(device).eval()
            self.net.load_state_dict(weights)
        def encode(self, image, quality):                # float32 [1, 3, H, W] in [0, 1]
            return self.net.compress(image, quality)     # bytes
        def decode(self, data, height, width):           # what encode gave, all of it
            return self.net.decompress(data, height, width)    # [1, 3, H, W]

Weights are safetensors, or a checkpoint that PyTorch reads with `weights_only`: nothing in them is
executed. The adapter itself is executed like any imported module. If a packet is lost, the picture
is an outage. A stored file is the height and width, two bytes each, followed by the adapter's
bytes; the four bytes are charged as the session.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from channels.config.checks import integer
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    MAX_PACKET_BYTES,
    Decoded,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    register,
)
from sqlink.codecs.rate_control import Ladders, finest_setting
from sqlink.codecs.slices import Pixels, beginning, decode_each, sliced, to_image, to_pixels
from sqlink.data.pictures import check_size
from sqlink.errors import ConfigError, DataError, WeightsError, one_line

_SIZE = struct.Struct(">HH")
_MOST_SIDE = 65535


class Adapter(Protocol):
    """Protocol of the user's class; see the module's docstring."""

    qualities: Sequence[float]

    def encode(self, image: Tensor, quality: float) -> bytes:
        """Encode float32 [1, 3, H, W] in [0, 1] to bytes."""
        ...

    def decode(self, data: bytes, height: int, width: int) -> Tensor:
        """Decode what `encode` returned to [1, 3, H, W]."""
        ...


@register("torch")
class Checkpoint:
    """The codec `torch`.

    adapter: `file.py:Class` or `module:Class`. weights: a file of weights, or None for an adapter
    without weights. packet_bytes: size of the slices of the adapter's bytes, all of which are
    needed. Raises ConfigError if the adapter cannot be loaded or is incomplete, WeightsError if the
    weights cannot be loaded.

    A native `quality` is one of the adapter's qualities.
    """

    name = "torch"
    suffix = ".sqt"
    carries_map = False
    session_bytes = _SIZE.size

    def __init__(
        self,
        adapter: str,
        weights: str | Path | None = None,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        device: torch.device | str = "cpu",
    ) -> None:
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, MAX_PACKET_BYTES)
        self.device = torch.device(device)
        make, source = _adapter_class(adapter)
        tensors, data = ({}, b"") if weights is None else _read_weights(Path(weights), self.device)
        try:
            self.adapter = make(tensors, self.device)
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"torch adapter={adapter!r} cannot be made of its weights: {one_line(error)[:300]}"
            ) from error
        self.qualities = _qualities(adapter, self.adapter)
        self._title = adapter
        self._ladders = Ladders()
        self.weights_sha256 = hashlib.sha256(source + data).hexdigest()
        """Hash of the adapter's file and the weights."""

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        return {
            "torch": torch.__version__,
            "parameters": f"{self._title}, {len(self.qualities)} qualities from "
            f"{self.qualities[0]:g} to {self.qualities[-1]:g}, SHA-256 {self.weights_sha256[:12]}",
        }

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1]; a map is ignored. See `Codec`.

        Raises ConfigError for a quality that is not one of the adapter's and for channel uses,
        DataError for a picture that is too small or too large, or if the adapter fails.
        """
        height, width = images.shape[2:]
        check_size(height, width, "the picture")
        if max(height, width) > _MOST_SIDE:
            raise DataError(f"the picture is {width}x{height}: at most {_MOST_SIDE} a side")
        budget = rate.budget_bytes(height, width)
        if budget is None and rate.quality not in self.qualities:
            raise ConfigError(
                f"torch quality={rate.quality!r} is not one of the adapter's: "
                f"{', '.join(f'{q:g}' for q in self.qualities)}"
            )
        answers: list[Stream | Unreachable] = []
        for picture in to_pixels(images):
            ladder = self._ladders.of(np.ascontiguousarray(picture), self._code)
            if budget is None:
                assert rate.quality is not None
                found: int | None = self.qualities.index(rate.quality)
            else:
                found = finest_setting(
                    ladder.size, budget - _SIZE.size, len(self.qualities), beyond=1
                )
            if found is None:
                lowest = ladder.size(0) + _SIZE.size
                answers.append(Unreachable(self.name, height, width, budget or 0, lowest))
            else:
                answers.append(self._stream(ladder.file(found), height, width))
        return answers

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode pictures of one size; an outage if a packet is missing or decoding fails."""
        return decode_each(received, self._decode)

    def _decode(self, received: Received) -> Tensor | None:
        data, whole = beginning(received)
        if not data or not whole:
            return None
        try:
            return self._image(data, received.session.height, received.session.width)
        except DataError:
            return None

    def parse(self, data: bytes) -> Stream:
        """Parse a stored file into its stream. Raises DataError if it is cut short or damaged."""
        if len(data) <= _SIZE.size:
            raise DataError(f"the torch file is cut short: it has {len(data)} bytes")
        height, width = _SIZE.unpack(data[: _SIZE.size])
        check_size(height, width, "the torch file's picture")
        self._image(data[_SIZE.size :], height, width)
        return self._stream(data[_SIZE.size :], height, width)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Convert any error of the adapter, which is the user's code, to a DataError."""
        try:
            yield
        except Exception as error:
            raise DataError(f"the adapter {self._title} fails: {one_line(error)[:300]}") from error

    @torch.inference_mode()
    def _code(self, picture: Pixels, setting: int) -> bytes:
        image = to_image(picture)[None].to(self.device)
        with self._naming():
            data = self.adapter.encode(image, self.qualities[setting])
        if not isinstance(data, bytes) or not data:
            raise DataError(f"the adapter {self._title} gave {type(data).__name__}, not bytes")
        return data

    @torch.inference_mode()
    def _image(self, data: bytes, height: int, width: int) -> Tensor:
        """Decode to float32 [3, H, W] in [0, 1]. Raises DataError."""
        with self._naming():
            image = torch.as_tensor(self.adapter.decode(data, height, width))
        if image.shape != (1, 3, height, width) or not bool(image.isfinite().all()):
            raise DataError(
                f"the adapter {self._title} gave {list(image.shape)}, not finite values of "
                f"{[1, 3, height, width]}"
            )
        return image[0].float().clamp(0, 1).cpu()

    def _stream(self, data: bytes, height: int, width: int) -> Stream:
        session = Session(self.name, height, width, _SIZE.pack(height, width))
        return sliced(session, data, self.packet_bytes, ranked=False)


def _adapter_class(
    adapter: str,
) -> tuple[Callable[[Mapping[str, Tensor], torch.device], Adapter], bytes]:
    """Load the class that `adapter` names; return it and the bytes of its file. Raises
    ConfigError.
    """
    place, _, name = adapter.rpartition(":") if isinstance(adapter, str) else ("", "", "")
    if not place or not name.isidentifier():
        raise ConfigError(f"torch adapter={adapter!r} must be file.py:Class or module:Class")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            if spec is None or spec.loader is None or not Path(place).is_file():
                raise ConfigError(f"torch adapter: there is no file {place}")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except (ImportError, SyntaxError, NameError, OSError) as error:
        raise ConfigError(
            f"torch adapter={adapter!r} cannot be imported: {one_line(error)}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigError(f"torch adapter: {place} has no class {name}")
    source = Path(module.__file__).read_bytes() if module.__file__ else b""
    return cast("Callable[[Mapping[str, Tensor], torch.device], Adapter]", found), source


def _qualities(title: str, adapter: Adapter) -> list[float]:
    """Return an adapter's qualities, coarse to fine. Raises ConfigError if it is incomplete."""
    for name in ("encode", "decode", "qualities"):
        if not hasattr(adapter, name):
            raise ConfigError(f"torch adapter={title!r} has no {name}")
    try:
        qualities = [float(quality) for quality in adapter.qualities]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"torch adapter={title!r}: qualities must be numbers, coarse to fine"
        ) from error
    if not qualities:
        raise ConfigError(f"torch adapter={title!r}: qualities must hold at least one number")
    return qualities


def _read_weights(path: Path, device: torch.device) -> tuple[dict[str, Tensor], bytes]:
    """Read tensors by name; return them and the bytes of the file. Raises WeightsError."""
    try:
        data = path.read_bytes()
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load

            try:
                return {name: one.to(device) for name, one in load(data).items()}, data
            except SafetensorError as error:
                raise WeightsError(f"{path} is not safetensors: {one_line(error)}") from error
        loaded = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read as weights alone; save its state_dict as safetensors"
        ) from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(one, Tensor) for one in tensors.values()
    ):
        raise WeightsError(f"{path} holds no state_dict: save the network's as safetensors")
    return {str(name): one for name, one in tensors.items()}, data
