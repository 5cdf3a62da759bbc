"""Any command line is a codec, and none of them can hang, flood or escape."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from sqlink.codecs import codec_for_suffix, load_codec
from sqlink.codecs.base import Codec, Described, Rate, Received, Stream, Unreachable
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError, DataError

IMAGE = Streets(seed=5, count=1, height=96, width=128)[0].image[None]
SCRIPT = """
import sys
from PIL import Image
what, source, target, *quality = sys.argv[1:]
with Image.open(source) as picture:
    if what == "encode":
        picture.save(target, "JPEG", quality=int(float(quality[0])))
    else:
        picture.save(target, "PNG")
"""


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    """JPEG as a program of its own."""
    script = tmp_path / "my codec.py"
    script.write_text(SCRIPT)
    return made(script)


def made(script: Path, **options: object) -> Codec:
    python = sys.executable
    return load_codec(
        "external",
        **{
            "encode": f"{python} '{script}' encode {{in}} {{out}} {{q}}",
            "decode": f"{python} '{script}' decode {{in}} {{out}}",
            "qualities": [5, 95],
            "steps": 7,
            **options,
        },
    )


def broken(tmp_path: Path, body: str, **options: object) -> Codec:
    script = tmp_path / "broken.py"
    script.write_text(f"import sys, time, os\nsource, target = sys.argv[2:4]\n{body}\n")
    return made(script, **options)


def test_a_program_is_a_codec_fitted_to_a_budget(codec: Codec) -> None:
    assert isinstance(codec, Codec)
    assert isinstance(codec, Described)
    assert codec_for_suffix(codec.suffix) == "external"
    assert codec.describe()["parameters"] == "7 qualities from 5 to 95"
    files = []
    for quality in (5, 20, 35, 50):
        (found,) = codec.encode(IMAGE, Rate(quality=quality))
        assert isinstance(found, Stream)
        files.append(found.to_bytes())
    budget = len(files[2]) + 1
    assert len(files[3]) > budget
    (found,) = codec.encode(IMAGE, Rate(bytes=budget))
    assert isinstance(found, Stream)
    assert found.to_bytes() == files[2]
    (low,) = codec.encode(IMAGE, Rate(bytes=30))
    assert isinstance(low, Unreachable)
    assert low.lowest_bytes == len(files[0])


def test_its_pictures_come_back_whole_or_not_at_all(codec: Codec) -> None:
    (found,) = codec.encode(IMAGE, Rate(quality=95))
    assert isinstance(found, Stream)
    lost = Received(found.session, (*[p.data for p in found.packets[:-1]], None))
    decoded = codec.decode([Received.whole(found), lost])
    assert decoded.outage.tolist() == [False, True]
    assert float(((decoded.images[0] - IMAGE[0]) ** 2).mean()) < 1e-3
    assert codec.parse(found.to_bytes()) == found
    with pytest.raises(DataError, match="the decode command failed"):
        codec.parse(b"no picture")


@pytest.mark.parametrize(
    ("body", "options", "line"),
    [
        ("time.sleep(60)", {"time_limit_s": 1.0}, "took more than 1 s"),
        ("sys.exit('no licence found')", {}, "failed: .*: no licence found"),
        ("pass", {}, "wrote nothing to {out}"),
        ("open(target, 'w')", {}, "wrote nothing to {out}"),
        ("bytearray(3 << 30)", {"memory_mib": 512}, "failed: .*MemoryError"),
        ("open(target, 'wb').truncate(1 << 40)", {}, "failed"),
        ("os.mkdir(target)", {}, "wrote nothing to {out}"),
    ],
)
def test_a_program_that_goes_wrong_is_one_line(
    tmp_path: Path, body: str, options: dict[str, object], line: str
) -> None:
    codec = broken(tmp_path, body, **options)
    start = time.monotonic()
    with pytest.raises(DataError, match=line) as error:
        codec.encode(IMAGE, Rate(quality=5))
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 30


def test_what_a_program_leaves_running_is_ended(tmp_path: Path) -> None:
    child = tmp_path / "child"
    body = (
        "import subprocess\n"
        f"p = subprocess.Popen(['sleep', '60']); open({str(child)!r}, 'w').write(str(p.pid))"
    )
    start = time.monotonic()
    with pytest.raises(DataError, match="wrote nothing"):
        broken(tmp_path, body).encode(IMAGE, Rate(quality=5))
    assert time.monotonic() - start < 40  # nobody waits for the child
    stat = Path(f"/proc/{child.read_text()}/stat")
    deadline = time.monotonic() + 10
    while stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_no_shell_reads_a_command(tmp_path: Path) -> None:
    script = tmp_path / "codec.py"
    script.write_text(SCRIPT)
    python, trace = sys.executable, tmp_path / "trace"
    codec = made(script, encode=f"{python} {script} encode {{in}} {{out}} {{q}} ; touch {trace}")
    codec.encode(IMAGE, Rate(quality=5))
    assert not trace.exists()


def test_another_program_under_the_same_name_is_another_codec(tmp_path: Path) -> None:
    script = tmp_path / "codec.py"
    script.write_text(SCRIPT)
    before = vars(made(script))["weights_sha256"]
    script.write_text(SCRIPT + "\n# changed\n")
    assert vars(made(script))["weights_sha256"] != before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"encode": "cjxl {in} {out}"}, "must be a command line with {in}, {out}, {q}"),
        ({"decode": ""}, "must be a command line with"),
        ({"decode": 3}, "must be a command line with"),
        ({"encode": "'cjxl {in} {out} {q}"}, "No closing quotation"),
        ({"decode": "no-such-program-here {in} {out}"}, "'no-such-program-here' is not found"),
        ({"qualities": [3]}, "must be two numbers, the coarsest first"),
        ({"qualities": [3, 3]}, "two different numbers"),
        ({"steps": 1}, "steps"),
        ({"time_limit_s": 0}, "time_limit_s"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, options: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        made(tmp_path / "codec.py", **options)


def test_a_quality_off_the_ladder_is_refused(codec: Codec) -> None:
    with pytest.raises(ConfigError, match="not among the 7 qualities from 5 to 95"):
        codec.encode(torch.zeros(1, 3, 32, 32), Rate(quality=6))
