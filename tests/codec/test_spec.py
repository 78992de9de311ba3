"""codec.spec: rates, saving, and the error where two grids meet that differ."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from codec.errors import SpecError
from codec.spec import FrameSpec, TokenSpec, require_same


def test_rates_follow_from_the_grid() -> None:
    assert FrameSpec().rate == 93.75
    assert TokenSpec().rate == 23.4375
    encodec = TokenSpec(FrameSpec("encodec", 24_000, 320, 128, 0.0), frames_per_token=3, codes=1000)
    assert (encodec.frames.rate, encodec.rate) == (75.0, 25.0)
    assert FrameSpec().floor == pytest.approx(-16.118, abs=1e-3) and math.exp(
        FrameSpec().floor
    ) == pytest.approx(1e-7)


def test_spec_survives_json() -> None:
    spec = TokenSpec(FrameSpec("encodec", 24_000, 320, 128, 0.0), frames_per_token=3, codes=1000)
    assert TokenSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_mismatch_names_both_sides() -> None:
    spec = TokenSpec()
    require_same(spec, TokenSpec(), a_name="the LM", b_name="the tokenizer")
    with pytest.raises(SpecError) as error:
        require_same(spec, dataclasses.replace(spec, codes=999), a_name="the LM", b_name="the tokenizer")
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in ("the LM", "the tokenizer", "codes=625", "codes=999"))
