"""Figures and their bootstrap intervals against closed forms."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from tts.evaluate.figures import Estimate, Figure, mean, ratio


def test_a_ratio_is_over_all_words_and_not_a_mean_of_cases() -> None:
    made = ratio([1, 0], [10, 2])
    assert made is not None
    assert made.value == 1 / 12
    assert made.cases == 2
    assert (made.low, made.high) == (0.0, 0.1)  # both draws the second, or both the first: a quarter each


def test_the_interval_is_the_normal_one_for_many_cases() -> None:
    values = np.random.default_rng(3).normal(5, 2, size=400)
    made = mean(list(values))
    assert made is not None
    half = 1.96 * values.std() / 20
    assert made.value == pytest.approx(values.mean())
    assert made.low == pytest.approx(values.mean() - half, abs=0.03)
    assert made.high == pytest.approx(values.mean() + half, abs=0.03)
    assert mean(list(values)) == made  # the same draws every time


def test_one_case_has_no_width_and_none_no_figure() -> None:
    assert mean([0.5]) == Estimate(0.5, 0.5, 0.5, 1)
    assert mean([]) is None
    assert ratio([1, 2], [0, 0]) is None


def test_draws_without_a_denominator_are_left_out() -> None:
    assert ratio([3, 0], [4, 0]) == Estimate(0.75, 0.75, 0.75, 2)


def test_scale() -> None:
    made, turned = Estimate(0.7, 0.6, 0.9, 5).scaled(0.5, 0.9), Estimate(0.7, 0.6, 0.9, 5).scaled(1.0, 0.0)
    assert astuple(made) == pytest.approx((0.5, 0.25, 1.0, 5))
    assert astuple(turned) == pytest.approx((0.3, 0.1, 0.4, 5))


def test_a_figure_takes_the_cases_that_have_its_values() -> None:
    wer = Figure("wer", "word error rate", "errors", "words", "%", 1)
    cases = [{"errors": 1, "words": 4}, {"heard": ""}, {"errors": 3, "words": 4}, {"errors": 0, "words": 0}]
    made = wer.estimate(cases)
    assert made is not None and made.value == 0.5 and made.cases == 3
    assert [wer.of(case) for case in cases] == [0.25, None, 0.75, None]
    assert wer.estimate([{}]) is None
    way = Figure("way", "", "similarity", zero=0.5, one=0.9)
    assert way.of({"similarity": 0.7}) == pytest.approx(0.5)
    made = way.estimate([{"similarity": 0.7}])
    assert made is not None and astuple(made) == pytest.approx((0.5, 0.5, 0.5, 1))


def test_shown() -> None:
    share, plain = Figure("", "", "", unit="%", digits=1), Figure("", "", "", digits=2)
    assert share.show(0.0534) == "5.3 %" and plain.show(3.456) == "3.46"
    assert share.show(None) == plain.show(math.nan) == share.show_estimate(None) == "-"
    assert share.show_estimate(Estimate(0.0534, 0.041, 0.066, 9)) == "5.3 % (4.1 to 6.6)"
    assert plain.show_estimate(Estimate(3.456, 3.1, 3.9, 9)) == "3.46 (3.10 to 3.90)"
