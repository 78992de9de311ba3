import pytest

from tts.tune.plan import FULL, MIDDLE, SHORT, plan_for


@pytest.mark.parametrize(
    ("minutes", "plan"), [(3, SHORT), (9.9, SHORT), (10, MIDDLE), (30, MIDDLE), (120, FULL), (600, FULL)]
)
def test_the_plan_follows_the_amount_of_speech(minutes, plan):
    assert plan_for(60 * minutes) is plan


def test_little_speech_gets_adapters_and_much_gets_all_weights():
    assert SHORT.lora and MIDDLE.lora > SHORT.lora and FULL.lora == 0
    assert SHORT.steps("lm") < MIDDLE.steps("lm") < FULL.steps("lm")
    assert SHORT.steps("acoustic") < MIDDLE.steps("acoustic") < FULL.steps("acoustic")


def test_what_the_user_says_wins():
    assert SHORT.changed(steps=7).steps("lm") == SHORT.changed(steps=7).steps("acoustic") == 7
    assert SHORT.changed(lora=4).lora == 4 and SHORT.changed(lora=4).lr == SHORT.lr
    assert SHORT.changed(lora=0).lr == FULL.lr  # all weights: their own rate
    assert FULL.changed(lora=8).lr == SHORT.lr
    assert SHORT.changed(lora=0, lr=1e-5).lr == 1e-5
    assert SHORT.changed() == SHORT
