"""Weights as safetensors, checked against a manifest of the shipped ones.

    save ──> FILE.safetensors ── ship ──> sqlink/weights/KIND-NAME.safetensors + manifest.json
    load("streets", "sqgan")      a shipped name: its SHA-256 must be the manifest's
    load("my.safetensors", ...)   a user's file: read as it says of itself in its header

A file's header (its safetensors metadata, text to text) always says its `kind`; floating tensors
are stored in half precision and loaded as float32, integer tensors (count tables) keep their type.
Nothing is ever unpickled.

    python -m sqlink.weights.manifest add FILE --kind sqgan --name streets --licence Apache-2.0 \\
        --data "CamVid fit, streets" --training "what was run, for how long, on what"
    python -m sqlink.weights.manifest check
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from channels.atomic_write import whole_file
from channels.registry import nearest
from sqlink.errors import SQLinkError, WeightsError

FOLDER = Path(__file__).resolve().parent
SUFFIX = ".safetensors"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """One shipped file. `bytes` is its size, `training` a sentence on how it came to be."""

    name: str
    kind: str
    file: str
    sha256: str
    bytes: int
    licence: str
    data: str
    training: str


@dataclass(frozen=True)
class Loaded:
    """Weights as read.

    tensors: floating ones float32, integer ones as stored, on the CPU. metadata: the header's text
    fields, `kind` among them. sha256: of the whole file, in hex.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str


def entries(folder: Path = FOLDER) -> list[Entry]:
    """List what is shipped. Raises WeightsError if the manifest is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return []
    try:
        return [Entry(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is damaged ({_line(error)}): install SQLink again or restore the file"
        ) from error


def names(kind: str, folder: Path = FOLDER) -> list[str]:
    """List the shipped names of one kind."""
    return [entry.name for entry in entries(folder) if entry.kind == kind]


def load(name_or_path: str | Path, kind: str, folder: Path = FOLDER) -> Loaded:
    """Read weights of a kind ("sqgan", "segmenter", ...): a shipped name or a path.

    A shipped name wins over a file of that name; a path is what has a separator or ends in
    ".safetensors". Raises WeightsError if the file is missing, truncated, of the wrong kind or,
    if shipped, not the one that the manifest describes.
    """
    text = os.fspath(name_or_path)
    shipped = {entry.name: entry for entry in entries(folder) if entry.kind == kind}
    if isinstance(name_or_path, str) and text in shipped:
        entry = shipped[text]
        return _read(folder / entry.file, kind, entry)
    path = Path(text)
    if not path.is_file():
        if os.sep in text or text.endswith(SUFFIX) or isinstance(name_or_path, Path):
            raise WeightsError(f"no {kind} weights at {text}: name a {SUFFIX} file")
        raise WeightsError(
            f"no {kind} weights called '{text}': {nearest(text, list(shipped))}, or give a path"
        )
    return _read(path, kind, None)


def save(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float16,
) -> str:
    """Write weights; the file appears whole or not at all. Returns its SHA-256.

    Floating tensors are stored as `dtype`, others as they are. metadata must say `kind`. Raises
    WeightsError for a value that is not finite in that type or a folder that cannot be written.
    """
    if not metadata.get("kind"):
        raise ValueError("weights must say their kind: metadata['kind'] is missing")
    stored = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if value.is_floating_point():
            value = value.to(dtype)
            if not bool(torch.isfinite(value).all()):
                raise WeightsError(f"tensor {name} has values that are not finite as {dtype}")
        stored[name] = value.contiguous().clone()
    data = safetensors.torch.save(stored, dict(metadata))
    _write(Path(path), data)
    return hashlib.sha256(data).hexdigest()


def ship(
    path: str | Path,
    *,
    name: str,
    kind: str,
    licence: str,
    data: str,
    training: str,
    folder: Path = FOLDER,
) -> Entry:
    """Copy a weights file among the shipped ones and write its entry, in place of one of that name.

    Raises WeightsError if the file is damaged or of another kind.
    """
    source = Path(path)
    if not source.is_file():
        raise WeightsError(f"no {kind} weights at {source}: name a {SUFFIX} file")
    _read(source, kind, None)
    content = source.read_bytes()
    entry = Entry(
        name=name,
        kind=kind,
        file=f"{kind}-{name}{SUFFIX}",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        licence=licence,
        data=data,
        training=training,
    )
    kept = [e for e in entries(folder) if (e.kind, e.name) != (kind, name)]
    listing = sorted([*kept, entry], key=lambda e: (e.kind, e.name))
    if source.resolve() != (folder / entry.file).resolve():
        _write(folder / entry.file, content)
    text = json.dumps({"files": [asdict(e) for e in listing]}, indent=2, ensure_ascii=False)
    _write(folder / MANIFEST, (text + "\n").encode())
    return entry


def _read(path: Path, kind: str, entry: Entry | None) -> Loaded:
    """Read one file and check it; `entry` is what the manifest says of it, None for a user's."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {_line(error)}") from error
    digest = hashlib.sha256(content).hexdigest()
    if entry is not None and digest != entry.sha256:
        raise WeightsError(
            f"{path} is not the shipped file: {len(content)} bytes, SHA-256 {digest[:12]}..., "
            f"expected {entry.bytes} bytes, {entry.sha256[:12]}...; install SQLink again"
        )
    try:
        tensors = safetensors.torch.load(content)
        header = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header]).get("__metadata__") or {}
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file ({_line(error)}): fetch or save it again"
        ) from error
    if metadata.get("kind") != kind:
        raise WeightsError(
            f"{path} holds weights of kind '{metadata.get('kind', 'unknown')}', not '{kind}'"
        )
    return Loaded(
        {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()},
        metadata,
        digest,
    )


def _write(path: Path, content: bytes) -> None:
    """Write beside, then move into place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise WeightsError(f"cannot write weights {path}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: `add` a file to the shipped ones, or `check` them all."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.weights.manifest")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="copy a file among the shipped ones and record it")
    add.add_argument("file", type=Path)
    for field in ("name", "kind", "licence", "data", "training"):
        add.add_argument(f"--{field}", required=True)
    commands.add_parser("check", help="load every shipped file against its hash")
    options = parser.parse_args(arguments)
    try:
        if options.command == "add":
            entry = ship(
                options.file,
                name=options.name,
                kind=options.kind,
                licence=options.licence,
                data=options.data,
                training=options.training,
            )
            print(f"{entry.file} {entry.bytes} bytes {entry.sha256}")
        else:
            for entry in entries():
                load(entry.name, entry.kind)
                print(f"{entry.file} {entry.bytes} bytes ok")
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
