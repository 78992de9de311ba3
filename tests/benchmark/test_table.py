"""Tables as text and JSON."""

from __future__ import annotations

import json

import pytest

from tts.benchmark.measure import Sample
from tts.benchmark.table import Line, Table, compared, each, number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (123456.7, "123457"),
        (123.4, "123"),
        (12.34, "12.3"),
        (9.996, "10.0"),
        (0.21349, "0.213"),
        (0.00012345, "0.000123"),
        (-1.5, "-1.50"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_table() -> None:
    ours, theirs = [Sample((1.0, 2.0, 3.0)), Sample((0.5,) * 3)], [Sample((3.0, 8.0, 9.0)), None]
    table = Table(
        "lm",
        "decoding",
        "batch",
        (1, 16),
        [*compared("all", "s", ours, theirs), Line("used", "%", [Sample((0.25, 0.5, 0.75)), None])],
        [Line("twice the text", "", [Sample((2.0, 2.0, 2.2))])],
    )
    assert str(table).splitlines() == [
        "lm: decoding",
        "batch                              1                      16",
        "all, s           2.00 (1.50 to 2.50)  0.500 (0.500 to 0.500)",
        "  reference, s   8.00 (5.50 to 8.50)                       -",
        "  times as fast  3.00 (3.00 to 3.50)                       -",
        "used, %          50.0 (37.5 to 62.5)                       -",
        "twice the text: 2.00 (2.00 to 2.10)",
    ]
    made = json.loads(json.dumps(table.to_dict()))
    assert made["columns"] == [1, 16] and made["against"] == "batch"
    assert [line["label"] for line in made["lines"]] == ["all", "  reference", "  times as fast", "used"]
    assert made["lines"][2]["cells"] == [{"median": 3.0, "low": 3.0, "high": 3.5, "values": [3, 4, 3]}, None]
    assert made["notes"][0]["cells"][0]["values"] == [2.0, 2.0, 2.2]


def test_a_rate_is_faster_when_it_is_higher() -> None:
    lines = compared("ids a second", "", [Sample((60.0,))], [Sample((20.0,))], rate=True)
    assert lines[2].cells == [Sample((3.0,))]
    assert each(lambda a, b: a - b, [Sample((3.0, 4.0))], [Sample((1.0, 1.0))]) == [Sample((2.0, 3.0))]
