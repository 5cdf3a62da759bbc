"""The page to play with answers its own page on this machine, and nobody else."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from PIL import Image

from experiments.play.server import HOST, MOST_PICTURE, TOKEN_HEADER, Server
from experiments.play.stage import CODECS, MOST_PIXELS, PROTECTION, RATES, Setting, Stage
from sqlink.cli.errors import INTERRUPTED
from sqlink.codecs.base import Rate, Received
from sqlink.codecs.sqgan.codec import sqgan
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError
from sqlink.metrics.psnr import psnr
from sqlink.segmentation import load_segmenter
from tests.browser import Watched, chromium


@pytest.fixture(scope="module")
def stage() -> Stage:
    """A small street."""
    sample = Streets(seed=2, count=1, height=128, width=160)[0]
    return Stage(sample.image, "small street", sample.segmentation)


@pytest.fixture(scope="module")
def server(stage: Stage) -> Iterator[Server]:
    with Server(stage) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()


def ask(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    """Status and content of an answer; the token is in the header unless another is given."""
    link = http.client.HTTPConnection(HOST, server.server_address[1], timeout=120)
    own = {TOKEN_HEADER: server.token, **{k.replace("_", "-"): v for k, v in headers.items()}}
    link.request(method, path, body, own)
    answer = link.getresponse()
    return answer.status, answer.read()


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_the_page_comes_with_the_token_alone(server: Server) -> None:
    status, page = ask(server, "GET", f"/?token={server.token}")
    assert status == 200
    assert b"<title>Interactive link" in page
    assert ask(server, "GET", "/")[0] == 403
    assert ask(server, "GET", "/?token=wrong")[0] == 403
    assert server.token.encode() not in page


@pytest.mark.parametrize(
    "headers",
    [
        {"X-SQLink-Token": "wrong"},
        {"X-SQLink-Token": ""},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_anyone_else_is_refused(server: Server, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/api/about"), ("POST", "/api/send"), ("POST", "/api/judge")):
        status, content = ask(server, method, path, b"{}" if method == "POST" else None, **headers)
        assert status == 403
        assert list(json.loads(content)) == ["error"]


def test_what_is_not_there_or_too_long_is_refused(server: Server) -> None:
    assert ask(server, "GET", "/etc/passwd")[0] == 404
    assert ask(server, "GET", "/../setup.cfg")[0] == 404
    assert ask(server, "POST", "/api/send", b"x" * 5000)[0] == 413
    assert ask(server, "POST", "/api/picture", Content_Length=str(MOST_PICTURE + 1))[0] == 413


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/send", b"not json", "setting"),
        ("/api/send", b'{"bpp": -1}', "bpp"),
        ("/api/send", b'{"codec": "h264"}', "codec"),
        ("/api/send", b'{"colour": 1}', "colour"),
        ("/api/judge", b'{"loss": 2}', "loss"),
        ("/api/street", b'{"seed": "x"}', "seed"),
        ("/api/street", b"[]", "seed"),
        ("/api/picture", b"no picture", "the picture"),
    ],
)
def test_a_wrong_request_is_answered_in_one_line(
    server: Server, path: str, body: bytes, said: str
) -> None:
    status, content = ask(server, "POST", path, body)
    assert status == 400
    error = json.loads(content)["error"]
    assert said in error
    assert "\n" not in error


def test_answers_forbid_everything_from_elsewhere(server: Server) -> None:
    link = http.client.HTTPConnection(HOST, server.server_address[1], timeout=60)
    link.request("GET", f"/?token={server.token}")
    answer = link.getresponse()
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    answer.read()


def test_a_port_that_is_taken_is_said(server: Server, stage: Stage) -> None:
    with pytest.raises(ConfigError, match="cannot listen there"):
        Server(stage, server.server_address[1])


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process")
def test_ctrl_c_ends_it_while_a_thread_computes() -> None:
    code = """
import signal, sys, torch
from experiments.play.stage import Stage
from sqlink.cli.app import app

def compute(stage):
    x = torch.rand(256, 256)
    while True:
        x @ x

signal.signal(signal.SIGINT, signal.default_int_handler)
Stage.warm = compute
sys.argv = ["sqlink", "play", "--no-open"]
app()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "http" in process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (INTERRUPTED, "stopped\n")


def test_a_clean_link_delivers_all_and_a_dead_one_nothing(stage: Stage) -> None:
    for codec in ("sqgan", "jpeg2000"):
        clean = stage.send(Setting(codec=codec, bpp=1, snr_db=40))
        assert clean["delivered"] == clean["packets"] > 0
        assert not clean["outage"]
        assert sum(clean["bits"].values()) > 8 * clean["bytes"]
        dead = stage.send(Setting(codec=codec, bpp=1, loss=1))
        assert dead["delivered"] == 0
        assert dead["outage"]
        assert dead["image"] != clean["image"]


def test_more_protection_costs_more_channel_uses_and_loses_no_more(stage: Stage) -> None:
    found = [
        stage.send(Setting(codec="sqgan", bpp=1, snr_db=6, protection=n))
        for n in range(len(PROTECTION))
    ]
    uses = [scene["uses"] for scene in found]
    assert uses == sorted(uses)
    assert found[-1]["delivered"] >= found[0]["delivered"]


def test_a_draw_is_the_same_again_and_another_differs(stage: Stage) -> None:
    setting = Setting(codec="sqgan", bpp=2, loss=0.5)
    first = stage.send(setting)
    assert stage.send(setting) == first
    lost = {tuple(stage.send(setting.model_copy(update={"draw": n}))["lost"]) for n in range(8)}
    assert len(lost) > 1


def test_what_was_lost_is_shown_as_lost(stage: Stage) -> None:
    setting = Setting(codec="sqgan", bpp=2, loss=0.5, snr_db=40)
    scenes = [stage.send(setting.model_copy(update={"draw": draw})) for draw in range(24)]
    fates = [
        set(bytes.fromhex(one["tokens"]["image"]) + bytes.fromhex(one["tokens"]["map"]))
        for one in scenes
        if one["delivered"]
    ]
    assert all(found <= {0, 128, 255} for found in fates)
    assert any({128, 255} <= found for found in fates)
    whole = stage.send(Setting(codec="sqgan", bpp=2, loss=0, snr_db=40))
    everything = bytes.fromhex(whole["tokens"]["image"]) + bytes.fromhex(whole["tokens"]["map"])
    assert len(set(everything)) == 1


def test_the_judge_is_asked_apart_and_sees_more_where_more_came(stage: Stage) -> None:
    whole, lost = Setting(codec="jpeg2000", bpp=2, snr_db=40), Setting(codec="jpeg2000", loss=1)
    assert "miou" not in stage.send(whole)
    assert stage.judge(lost)["miou"] < stage.judge(whole)["miou"] <= 1
    about = stage.about()
    assert stage.judge(whole)["miou"] == pytest.approx(about["ceiling"], abs=0.2)


def test_every_rate_is_encoded_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.play.stage.IDLE_S", 0.01)
    sample = Streets(seed=4, count=1, height=64, width=80)[0]
    stage = Stage(sample.image, "tiny street", sample.segmentation)
    stage.warm()
    for name in CODECS:
        monkeypatch.setattr(stage._codecs[name], "encode", None)
    for bpp in RATES:
        for name in CODECS:
            stage.send(Setting.model_validate({"codec": name, "bpp": bpp}))


def test_a_realism_between_is_a_mix_of_both_ends(stage: Stage) -> None:
    """But for 8 bits and what a shift to the mean colour clamps, of each end instead of the mix."""
    codec = sqgan()
    codec.chunk = 1
    sent = stage.send(Setting(codec="sqgan", bpp=1, snr_db=40, realism=0.3))
    labels = load_segmenter("tx").segment(stage.image[None])
    (stream,) = codec.encode(stage.image[None], Rate(bpp=1), labels)
    codec.realism = 0.3
    found = codec.decode([Received.whole(stream)]).images
    assert float(psnr(found, stage.image[None])[0]) == pytest.approx(sent["psnr_db"], abs=0.05)


def test_a_codec_that_cannot_go_so_low_says_its_lowest(stage: Stage) -> None:
    scene = stage.send(Setting(codec="bpg", bpp=0.002))
    assert scene["unreachable"] > 0.002
    assert scene["bytes"] == scene["uses"] == 0


def test_a_large_picture_is_made_smaller_and_needs_no_labels() -> None:
    stage = Stage(torch.rand(3, 600, 900), "large")
    about = stage.about()
    assert about["width"] * about["height"] <= 1.01 * MOST_PIXELS
    assert about["width"] / about["height"] == pytest.approx(1.5, rel=0.01)
    assert not about["labelled"]


@pytest.mark.slow
@pytest.mark.parametrize(("theme", "width"), [("dark", 1400), ("light", 390)])
def test_every_control_moves_and_nothing_leaves_the_page(
    server: Server, theme: str, width: int
) -> None:
    with chromium() as browser:
        tab = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if theme == "dark" else "light",
        )
        watched = Watched(tab, (f"http://{server.hosts[0]}/", "data:", "blob:"))
        tab.goto(server.url)
        tab.locator("#sliders input").first.wait_for()
        assert watched.fits()
        assert watched.move_everything() > 20
        tab.get_by_label("Additional packet loss").press("End")
        tab.get_by_role("radio", name="tokens").click()
        tab.locator("dd", has_text="%").last.wait_for()
        assert watched.fits()
        picture = io.BytesIO()
        Image.new("RGB", (64, 48), "teal").save(picture, "PNG")
        tab.locator("#file").set_input_files(
            {"name": "teal.png", "mimeType": "image/png", "buffer": picture.getvalue()}
        )
        tab.locator("#name", has_text="your picture, 64").wait_for()
        watched.check()


@pytest.mark.slow
def test_the_picture_that_was_asked_for_last_is_shown_last(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a street that was asked for before it takes longer to come."""

    def slow(seed: int) -> tuple[torch.Tensor, str, None]:
        asked.set()
        time.sleep(1.5)
        return torch.rand(3, 64, 96), f"street {seed}", None

    asked = threading.Event()
    monkeypatch.setattr("experiments.play.server.street", slow)
    with chromium() as browser:
        tab = browser.new_page()
        tab.goto(server.url)
        tab.locator("#sliders input").first.wait_for()
        tab.locator("#street").click()
        assert asked.wait(30)
        picture = io.BytesIO()
        Image.new("RGB", (64, 48), "teal").save(picture, "PNG")
        tab.locator("#file").set_input_files(
            {"name": "teal.png", "mimeType": "image/png", "buffer": picture.getvalue()}
        )
        tab.locator("#name", has_text="your picture, 64").wait_for()
        tab.wait_for_timeout(2500)
        assert "your picture, 64" in (tab.locator("#name").text_content() or "")
        assert server.stage.name == "your picture"
