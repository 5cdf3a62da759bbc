"""Numbers in YAML are those of YAML 1.2; ranges are those of the command line."""

from __future__ import annotations

import math

import pytest
import yaml

from channels.config.builder import build
from channels.config.ranges import values_of
from channels.config.yaml import read_yaml
from channels.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0", 0),
        ("-08", -8),
        ("0x1F", 31),
        ("0o17", 15),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text: str, value: float) -> None:
    """Core schema, section 10.3.2 of YAML 1.2.2; PyYAML alone reads 010 as 8 and 1e-3 as a text."""
    read = read_yaml(text, "test")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["0:20:5", "10:50:10", "-3:3:1.5", "0.02:0.1:0.02", "1e-3:2e-3:1e-3"]
)
def test_a_range_is_what_it_is_on_the_command_line(text: str) -> None:
    """Base 60 in YAML 1.1: 10:50:10 was 39010."""
    assert read_yaml(text, "test") == values_of("--snr-db", text)
    assert read_yaml(f"snr_db: {text}", "test") == {"snr_db": values_of("--snr-db", text)}
    assert read_yaml(f"[{text}, 77]", "test") == [*values_of("--snr-db", text), 77]


@pytest.mark.parametrize(
    "text",
    [
        "1:30",
        "12:30:45:10",
        "1_000",
        "0b101",
        "1.2.3",
        "--5",
        "1,000",
        "0,5,10",
        "5e",
        "0x",
        "2024-01-01",
    ],
)
def test_what_looks_like_a_number_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"line 2: .* looks like a number but is not one"
    ) as caught:
        read_yaml(f"a: 1\nb: {text}", "test")
    assert "\n" not in str(caught.value)
    assert read_yaml(f"b: '{text}'", "test") == {"b": text}


@pytest.mark.parametrize("text", ["5:0:1", "0:1:0", "0:1:-1", "0:1:1e-9", "1e999"])
def test_a_range_or_number_without_end_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"rising|at most 200|too large"):
        read_yaml(text, "test")


@pytest.mark.parametrize(
    "text", ["16qam", "0016E5_07959", "0001TP_006690", "a:b", "1/2", "5dB", "."]
)
def test_words_with_digits_stay_words(text: str) -> None:
    assert read_yaml(text, "test") == text


@pytest.mark.parametrize(
    "text",
    ["{a: [}", "a: 1\na: 2", "!!int x", "&a [*a]", "? [1]\n: 2", "9" * 5000, "!!python/none x"],
)
def test_what_is_wrong_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "test")
    assert "\n" not in str(caught.value)


def test_what_is_read_can_be_written() -> None:
    held = read_yaml("{snr_db: 0:20:5, bytes: [10:30:10]}", "test")
    assert yaml.safe_load(yaml.safe_dump(held)) == held


def test_a_range_where_one_number_is_due_is_refused() -> None:
    spec = read_yaml("{iid_erasure: {loss: 0:1:0.5}}", "test")
    with pytest.raises(ConfigError, match="must be a number"):
        build(spec)


def test_aliases_that_grow_without_end_are_refused() -> None:
    """A billion values out of ten lines; reading them would take the machine."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 8)}]" for k in range(1, 10)]
    with pytest.raises(ConfigError, match="aliases stand for over"):
        read_yaml("\n".join(lines), "test")
    assert read_yaml("a: &a [1, 2]\nb: [*a, *a]", "test")["b"] == [[1, 2], [1, 2]]
