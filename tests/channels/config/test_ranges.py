"""Values of an axis: ranges and lists, rising, or one line that says what is wrong."""

from __future__ import annotations

import pytest

from channels.config.ranges import span, values_of
from channels.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "values"),
    [("0:10:5", [0, 5, 10]), ("5", [5]), ("3,1,3", [1, 3]), ("0:1:0.3", [0, 0.3, 0.6, 0.9])],
)
def test_values_are_ranges_or_lists(text: str, values: list[float]) -> None:
    assert values_of("--snr-db", text) == pytest.approx(values)


@pytest.mark.parametrize(
    "text", ["", "a", "0:1", "1:0:1", "0:1:0", "0:1:-1", "nan", "0,inf", "0:1e9:1", "1:2,3:1"]
)
def test_wrong_values_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values_of("--snr-db", text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--snr-db")


def test_a_range_of_integers_holds_integers() -> None:
    assert [type(value) for value in span("10:50:20")] == [int, int, int]
    assert [type(value) for value in span("10:50:20.0")] == [float, float, float]
