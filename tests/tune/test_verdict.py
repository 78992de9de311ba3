from tts.evaluate.figures import Estimate
from tts.tune.verdict import judge


def row(wer=None, similarity=None, per=None):
    values = {"wer": wer, "similarity": similarity, "per": per}
    return {
        k: None if v is None else Estimate(value=v, low=v - 0.01, high=v + 0.01, cases=20)
        for k, v in values.items()
    }


SAME = row(0.1, 0.8)


def test_more_similar_and_as_clear_is_better():
    verdict = judge(row(0.10, 0.70), row(0.11, 0.80), SAME, SAME)
    assert verdict.better and not verdict.harmed
    assert "held-out sentences: word error rate 10.0 % -> 11.0 % (95 %: 10.0 to 12.0)" in verdict.reasons
    assert "held-out sentences: speaker similarity 0.700 -> 0.800 (95 %: 0.790 to 0.810)" in verdict.reasons


def test_clearer_and_as_similar_is_better():
    assert judge(row(0.30, 0.70), row(0.20, 0.70), SAME, SAME).better


def test_a_gain_that_costs_errors_is_worse():
    verdict = judge(row(0.10, 0.70), row(0.20, 0.90), SAME, SAME)
    assert not verdict.better and "worse than the base" in verdict.reasons


def test_a_change_within_chance_is_no_gain():
    verdict = judge(row(0.10, 0.700), row(0.09, 0.705), SAME, SAME)
    assert not verdict.better
    assert "no better than the base, as far as so few sentences tell" in verdict.reasons


def test_harm_to_other_voices_is_told_and_does_not_decide():
    for after in (row(0.2, 0.8), row(0.1, 0.7)):
        verdict = judge(row(0.1, 0.7), row(0.1, 0.9), SAME, after)
        assert verdict.better and verdict.harmed
        assert "--replay" in verdict.reasons[-1]


def test_without_a_recogniser_the_reading_counts():
    verdict = judge(row(per=0.30), row(per=0.20), row(per=0.3), row(per=0.3))
    assert verdict.better
    assert verdict.reasons[0].startswith(
        "held-out sentences: phoneme error rate, read back from tokens 30.0 %"
    )


def test_with_nothing_measured_nothing_is_better():
    assert not judge(row(), row(), {}, {}).better
