from tts.evaluate.figures import Estimate
from tts.tune.verdict import Move, judge


def moves(**figures: tuple[float, float]) -> dict[str, Move]:
    """Figures before and after, each with a change known to 0.01."""
    made = {}
    for key, (before, after) in figures.items():
        change = after - before
        made[key] = Move(
            Estimate(before, before - 0.05, before + 0.05, 20),
            Estimate(after, after - 0.05, after + 0.05, 20),
            Estimate(change, change - 0.01, change + 0.01, 20),
        )
    return made


SAME = moves(wer=(0.1, 0.1), similarity=(0.8, 0.8))


def test_more_similar_and_as_clear_is_better():
    verdict = judge(moves(wer=(0.100, 0.112), similarity=(0.70, 0.80)), SAME)
    assert verdict.better and not verdict.harmed
    assert verdict.reasons[:2] == (
        "in the new voices: word error rate 10.0 % -> 11.2 % (change, 95 %: +0.2 to +2.2; 20 sentences)",
        "in the new voices: speaker similarity 0.700 -> 0.800 (change, 95 %: +0.090 to +0.110; 20 sentences)",
    )


def test_clearer_and_as_similar_is_better():
    assert judge(moves(wer=(0.30, 0.20), similarity=(0.7, 0.7)), SAME).better


def test_a_gain_that_costs_errors_is_worse():
    verdict = judge(moves(wer=(0.1, 0.2), similarity=(0.7, 0.9)), SAME)
    assert not verdict.better and "worse than the base" in verdict.reasons


def test_a_change_within_chance_is_no_gain():
    verdict = judge(moves(wer=(0.10, 0.09), similarity=(0.700, 0.705)), SAME)
    assert not verdict.better
    assert "no better than the base, as far as so few sentences tell" in verdict.reasons


def test_harm_to_other_voices_is_told_and_does_not_decide():
    for others in (moves(wer=(0.1, 0.2)), moves(similarity=(0.8, 0.7))):
        verdict = judge(moves(wer=(0.1, 0.1), similarity=(0.7, 0.9)), others)
        assert verdict.better and verdict.harmed
        assert "--replay" in verdict.reasons[-1]


def test_without_a_recogniser_the_reading_counts():
    verdict = judge(moves(per=(0.3, 0.2)), moves(per=(0.3, 0.3)))
    assert verdict.better
    assert verdict.reasons[0].startswith(
        "in the new voices: phoneme error rate, read back from tokens 30.0 % -> 20.0 %"
    )


def test_with_nothing_measured_nothing_is_better():
    assert not judge({}, {}).better
