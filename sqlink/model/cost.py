"""Cost of a configuration, without running it: `python -m sqlink.model.cost paper streets`.

Networks are built from PyTorch's fake tensors, which have shapes but no data, so that even the
largest is counted in seconds and takes no memory. FLOPs are PyTorch's own count
(`torch.utils.flop_counter`): convolutions and matrix products including attention; a multiplication
and an addition count as two. Memory is that of all float32 tensors alive at one time, without
weights and overhead of the allocator.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from sqlink.errors import SQLinkError
from sqlink.model.config import ModelConfig, model_config
from sqlink.model.sqgan import SQGAN

SIZES = ((256, 512), (360, 480))
"""Height and width of the paper's pictures, and of CamVid's."""


@dataclass(frozen=True)
class Cost:
    """Cost of one picture of height x width under a configuration.

    parameters: of both halves, codebooks included. encoder_flops, decoder_flops: of the
    transmitter's and of the receiver's networks. inference_bytes: peak of the activations in
    encoding or decoding. training_bytes: activations that a training step of the generator keeps
    for its backward pass.
    """

    name: str
    height: int
    width: int
    parameters: int
    encoder_flops: int
    decoder_flops: int
    inference_bytes: int
    training_bytes: int


class LiveMemory(TorchDispatchMode):
    """Counter of the bytes of storages made within a `with` block: alive now, and at the peak.

    >>> with LiveMemory() as memory:
    ...     kept = torch.zeros(1000, device="meta") + 1
    >>> memory.live, memory.peak
    (4000, 8000)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        inputs = [t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if _is_tensor(t)]
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if _is_tensor(tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known and storage._cdata not in inputs:
                    self._known.add(storage._cdata)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def cost(config: ModelConfig, height: int, width: int) -> Cost:
    """Count a configuration on one picture; sides are padded to whole tokens as by the codec."""
    rows, columns = config.grid(height, width)
    factor = config.downsampling
    with FakeTensorMode():
        network = SQGAN(config)
        images = torch.empty(1, 3, rows * factor, columns * factor)
        maps = torch.empty(1, rows * factor, columns * factor, dtype=torch.int64)
        tokens = torch.empty(1, rows, columns, dtype=torch.int64)
        halves: tuple[Callable[[], Any], Callable[[], Any]] = (
            lambda: network.analyse(images, maps),
            lambda: network.synthesise(tokens, tokens, height, width),
        )
        flops, peaks = [], []
        for half in halves:
            with FlopCounterMode(display=False) as counter, LiveMemory() as memory:
                half()
            flops.append(counter.get_total_flops())
            peaks.append(memory.peak)
        with LiveMemory() as memory:
            kept = _training_pass(network, images, maps)
            held = memory.live
        del kept
    return Cost(
        name=config.name,
        height=height,
        width=width,
        parameters=sum(p.numel() for p in network.parameters())
        + (config.image_codes + config.map_codes) * config.code_dim,
        encoder_flops=flops[0],
        decoder_flops=flops[1],
        inference_bytes=max(peaks),
        training_bytes=held,
    )


def _training_pass(network: SQGAN, images: Tensor, maps: Tensor) -> tuple[Tensor, ...]:
    """Compute both branches as a training step does, keeping what the backward pass needs."""
    v_x, scores_x = network.encode_image(images, maps)
    v_s, scores_s = network.encode_map(maps)
    logits = network.decode_map(v_s, scores_s >= 0)
    return logits, network.decode_image(v_x, scores_x >= 0, logits.argmax(1))


def table(costs: Sequence[Cost]) -> str:
    """Format the costs as a table in Markdown."""
    lines = [
        "| configuration | picture | parameters | encoder | decoder | activations, coding "
        "| activations, training |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{c.name}` | {c.height}x{c.width} | {c.parameters / 1e6:.1f} M "
        f"| {c.encoder_flops / 1e9:.1f} GFLOP | {c.decoder_flops / 1e9:.1f} GFLOP "
        f"| {c.inference_bytes / 2**20:.0f} MiB | {c.training_bytes / 2**30:.2f} GiB |"
        for c in costs
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the costs of the configurations named, grouped by picture size."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.model.cost")
    parser.add_argument("configurations", nargs="*", default=["paper", "streets"])
    try:
        names = parser.parse_args(arguments).configurations
        configs = [model_config(name) for name in names]
    except SQLinkError as error:
        print(f"sqlink.model.cost: {error}", file=sys.stderr)
        return 2
    print(table([cost(config, *size) for config in configs for size in SIZES]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
