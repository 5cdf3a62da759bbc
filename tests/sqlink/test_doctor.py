"""The doctor tells what is merely missing from what is wrong."""

from __future__ import annotations

from importlib import metadata

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
    assert "threads" in subjects["cpu"]
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
    assert "give SQLink an environment of its own" in found("channels").says


def test_damaged_weights_are_wrong_and_the_exit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> None:
        raise WeightsError("manifest.json is damaged")

    monkeypatch.setattr("sqlink.weights.manifest.entries", damaged)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "WRONG  weights          manifest.json is damaged" in result.stdout
