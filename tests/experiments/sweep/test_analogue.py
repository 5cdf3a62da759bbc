"""A codec that makes symbols stands beside one that makes bytes, at equal channel uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments.sweep.runner import run_sweep
from experiments.sweep.store import read_results
from sqlink.data import open_dataset
from sqlink.errors import SQLinkError
from sqlink.model.deepjscc import DeepJSCC, DeepJSCCConfig
from sqlink.weights.manifest import save

Write = Callable[..., Path]

SWEEP = """
data: {{name: patterns, options: {{count: 2}}}}
codecs:
  - mosaic
  - {{name: deepjscc, options: {{weights: {weights}}}}}
rates: {{channel_uses: [160, 320]}}
channels:
  awgn: {{uncoded: {{over: awgn}}}}
  fading: {{uncoded: {{over: {{rayleigh: {{coherence: picture}}}}}}}}
conditions: {{snr_db: [0, 20]}}
realisations: 2
packet_bytes: 16
segmenter: levels-tx
judge: levels
metrics: [psnr, miou]
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = DeepJSCC(DeepJSCCConfig(latents=24, width=8, fine=8))
    patterns = open_dataset("patterns", count=4, height=32, width=64)
    network.start_from_klt(torch.stack([sample.image for sample in patterns]))
    path = tmp_path / "small.safetensors"
    save(path, network.state_dict(), {"kind": "deepjscc", "config": network.config.to_json()})
    return path


def test_rows_of_both_have_the_same_columns_and_within_the_same_channel_uses(
    write: Write, weights: Path, tmp_path: Path
) -> None:
    folder = run_sweep(write(SWEEP.format(weights=weights)), tmp_path / "out", progress=False)
    rows = read_results(folder).to_pylist()
    assert len(rows) == 2 * 2 * 2 * 2 * 2 * 2
    ours = [row for row in rows if row["codec"] == "deepjscc"]
    assert len(ours) == len(rows) // 2
    for row in rows:
        assert row["channel_uses"] <= row["rate_value"]
    for row in ours:
        assert row["channel_uses"] > row["rate_value"] - row["packets"]
        assert row["delivered"] == row["correct"] == row["packets"]
        assert row["bytes"] == row["outage"] == 0
    assert (folder / "summary.csv").exists()


def test_quality_rises_with_snr_and_fading_differs_by_realisation(
    write: Write, weights: Path, tmp_path: Path
) -> None:
    folder = run_sweep(write(SWEEP.format(weights=weights)), tmp_path / "out", progress=False)
    rows = [r for r in read_results(folder).to_pylist() if r["codec"] == "deepjscc"]

    def psnr(channel: str, snr: float, realisation: int = 0) -> float:
        return next(
            r["psnr_db"]
            for r in rows
            if (r["channel"], r["snr_db"], r["realisation"]) == (channel, snr, realisation)
            and r["rate_value"] == 320
        )

    assert psnr("awgn", 20) > psnr("awgn", 0) + 3
    assert abs(psnr("fading", 0) - psnr("fading", 0, 1)) > 0.1


def test_rows_do_not_depend_on_the_batch_size_and_a_sweep_goes_on(
    write: Write, weights: Path, tmp_path: Path, same: Callable[[Path, Path], None]
) -> None:
    path = write(SWEEP.format(weights=weights))
    whole = run_sweep(path, tmp_path / "whole", progress=False)
    single = run_sweep(path, tmp_path / "single", batch_size=1, progress=False)
    same(whole, single)
    same(whole, run_sweep(path, tmp_path / "whole", progress=False))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("realisations: 2", "sequence: {length: 2, picture_rate_hz: 5}", "single pictures"),
        ("{uncoded: {over: awgn}}", "{iid: {loss: 0.1}}", "carries packets, not symbols"),
        ("small.safetensors", "none.safetensors", "no deepjscc weights"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    write: Write, weights: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = SWEEP.format(weights=weights)
    assert old in text
    with pytest.raises(SQLinkError, match=said) as error:
        run_sweep(write(text.replace(old, new)), tmp_path / "out", progress=False)
    assert "\n" not in str(error.value)
