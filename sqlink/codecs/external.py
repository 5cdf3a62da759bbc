"""Any codec with a command line, under the name `external`.

    codecs:
      - name: external
        options:
          encode: cjxl {in} {out} -d {q}
          decode: djxl {in} {out}
          qualities: [25, 0.1]
          steps: 250

    picture ─> {in}, a PNG ─ encode ─> {out}, the file ─ slices ─> packets
    packets ─> {in}, the file ─ decode ─> {out}, a PNG ─> picture

The commands are run without a shell: they are split into words, and {in}, {out} and {q} are
replaced. Each run is a process group of its own in an empty folder, with limits of time, memory and
bytes written. It is killed after the time limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from channels.config.checks import integer, number
from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.file_codec import FileCodec, decode_with_pillow
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError, DataError

_MOST_SAID = 1 << 16
"""Number of last bytes of a program's messages that are read."""
_MOST_WRITTEN = 1 << 28
"""Bytes that a command may write to one file."""
_LIMITS = (
    "import os, resource as r, sys\n"
    "memory, written, cpu = map(int, sys.argv[1:4])\n"
    "for what, most in ((r.RLIMIT_AS, memory), (r.RLIMIT_FSIZE, written), (r.RLIMIT_CPU, cpu),"
    " (r.RLIMIT_CORE, 0)):\n"
    "    r.setrlimit(what, (most, most))\n"
    "os.execvp(sys.argv[4], sys.argv[4:])\n"
)


@register("external")
class External(FileCodec):
    """The codec `external`: two command lines.

    encode: makes {out}, a file of any kind, from {in}, a PNG, at the quality {q}. decode: makes
    {out}, a PNG, from {in}, the file. qualities: the coarsest and the finest, in this order; bytes
    must rise from one to the other. steps: number of evenly spaced qualities, including both ends;
    by default all whole numbers if both ends are whole, else 101. time_limit_s, memory_mib: limits
    of each run.

    A native `quality` is {q}. Raises ConfigError if a command lacks {in}, {out} or (encode) {q},
    and if a program is not found.
    """

    name = "external"
    suffix = ".external"
    decoder = "sqlink.codecs.external:decode_png"

    def __init__(
        self,
        encode: str,
        decode: str,
        qualities: Sequence[float],
        steps: int | None = None,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        time_limit_s: float = 60.0,
        memory_mib: int = 4096,
    ) -> None:
        super().__init__(packet_bytes)
        self._encode = _words("encode", encode, ("{in}", "{out}", "{q}"))
        self._decode_command = _words("decode", decode, ("{in}", "{out}"))
        if not isinstance(qualities, Sequence) or len(qualities) != 2:
            raise ConfigError(
                f"external qualities={qualities!r} must be two numbers, the coarsest first"
            )
        low, high = (number(self.name, "qualities", q, -1e9, 1e9) for q in qualities)
        if low == high:
            raise ConfigError(f"external qualities={qualities!r} must be two different numbers")
        whole = low == int(low) and high == int(high)
        default = int(abs(high - low)) + 1 if whole else 101
        count = integer(self.name, "steps", default if steps is None else steps, 2, 100_000)
        self.qualities = [float(q) for q in np.linspace(low, high, count)]
        self.settings = count
        self.time_limit_s = number(self.name, "time_limit_s", time_limit_s, 0.1, 3600)
        self.memory_mib = integer(self.name, "memory_mib", memory_mib, 16, 1 << 20)
        self.weights_sha256 = _fingerprint((*self._encode, *self._decode_command))

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file by the command `encode`. Raises DataError if that
        fails.
        """
        source = io.BytesIO()
        Image.fromarray(picture).save(source, format="PNG", compress_level=1)
        return self._run("encode", self._encode, source.getvalue(), ".png", "", setting)

    def setting(self, quality: float) -> int:
        """Return the setting of a quality. Raises ConfigError unless it is one of the ladder's."""
        if quality not in self.qualities:
            low, high = self.qualities[0], self.qualities[-1]
            raise ConfigError(
                f"external quality={quality:g} is not among the {self.settings} qualities from "
                f"{low:g} to {high:g}"
            )
        return self.qualities.index(quality)

    def describe(self) -> Mapping[str, str]:
        """Return the commands."""
        return {
            "encode": shlex.join(self._encode),
            "decode": shlex.join(self._decode_command),
            "parameters": f"{self.settings} qualities from {self.qualities[0]:g} to "
            f"{self.qualities[-1]:g}",
        }

    def picture(self, file: bytes, height: int, width: int) -> Pixels:
        """Decode a file to uint8 [H, W, 3]; see `FileCodec.picture`."""
        png = self._run("decode", self._decode_command, file, "", ".png", None)
        return super().picture(png, height, width)

    def _run(
        self,
        what: str,
        words: Sequence[str],
        data: bytes,
        suffix: str,
        made: str,
        setting: int | None,
    ) -> bytes:
        """Run a command on `data` as {in}; return what it writes to {out}. Raises DataError, one
        line.
        """
        with tempfile.TemporaryDirectory(prefix="sqlink-") as folder:
            source, target = Path(folder, f"in{suffix}"), Path(folder, f"out{made}")
            source.write_bytes(data)
            quality = "" if setting is None else f"{self.qualities[setting]:.6g}"
            filled = [
                word.replace("{in}", str(source))
                .replace("{out}", str(target))
                .replace("{q}", quality)
                for word in words
            ]
            self._watched(what, filled, folder)
            if not target.is_file() or not target.stat().st_size:
                raise DataError(f"the {what} command wrote nothing to {{out}}: {words[0]}")
            if target.stat().st_size > _MOST_WRITTEN:
                raise DataError(
                    f"the {what} command wrote more than {_MOST_WRITTEN >> 20} MiB: {words[0]}"
                )
            return target.read_bytes()

    def _watched(self, what: str, command: Sequence[str], folder: str) -> None:
        """Run a command within its limits. Raises DataError if it fails or exceeds them."""
        limits = (self.memory_mib << 20, _MOST_WRITTEN, int(self.time_limit_s) + 1)
        # A file, not a pipe: a process that the program leaves running may keep a pipe open.
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LIMITS, *map(str, limits), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd=folder,
                start_new_session=True,
            )
            try:
                process.wait(self.time_limit_s)
            except subprocess.TimeoutExpired as error:
                raise DataError(
                    f"the {what} command took more than {self.time_limit_s:g} s: {command[0]}; "
                    "raise time_limit_s"
                ) from error
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            said.seek(max(0, said.seek(0, os.SEEK_END) - _MOST_SAID))
            lines = said.read().decode(errors="replace").strip().splitlines()
        if process.returncode:
            why = lines[-1][:300] if lines else f"exit {process.returncode}"
            raise DataError(f"the {what} command failed: {command[0]}: {why}")


def _words(name: str, command: object, needed: Sequence[str]) -> tuple[str, ...]:
    """Split a command into words. Raises ConfigError if it cannot be run."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError as error:
        raise ConfigError(f"external {name}={command!r}: {error}") from error
    missing = [field for field in needed if not any(field in word for word in words)]
    if not words or missing:
        raise ConfigError(
            f"external {name}={command!r} must be a command line with {', '.join(needed)}"
        )
    program = shutil.which(words[0])
    if program is None:
        raise ConfigError(f"external {name}: the program '{words[0]}' is not found on the PATH")
    return (str(Path(program).absolute()), *words[1:])


def _fingerprint(words: Sequence[str]) -> str:
    """Hash the files that the commands name with SHA-256: changed files make another codec."""
    total = hashlib.sha256()
    for word in words:
        path = Path(word)
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


def decode_png(data: bytes) -> Pixels:
    """Decode a PNG to uint8 [H, W, 3]; runs in the decoders' worker process."""
    return decode_with_pillow(data, "PNG")
