"""Sentences of ours to measure with: what is held out is a handful, and errors of a handful tell nothing."""

from lhotse.cut import MonoCut

ENGLISH = (
    "The harbour was quiet when the last boat came in.",
    "Could you tell me which platform the train leaves from?",
    "She put the letters back into the wooden box and locked it.",
    "Rain is expected in the north, with sunshine later in the day.",
    "My brother has never liked the taste of coffee.",
    "Nobody remembered who had painted the old blue door.",
    "They walked along the river until the lights of the town came into view.",
    "A good teacher listens first and answers afterwards.",
    "The museum closes at six, so we should leave before lunch.",
    "His grandfather kept bees behind the house for forty years.",
    "Fresh bread and a little butter are enough for me.",
    "We found the keys under a cushion, exactly where you had left them.",
    "The engine coughed twice, and then it ran without any trouble.",
    "Please write your name and the date at the top of the page.",
    "Only a few people understood what the decision would cost.",
    "The children built a bridge of stones across the shallow water.",
    "It was too dark to read the signs on the other side of the road.",
    "Her voice was calm, but her hands were shaking.",
    "The price of wool has fallen for the third month in a row.",
    "Somewhere upstairs a window was banging in the wind.",
    "He counted the money again and put half of it aside.",
    "Few animals can live so far from the nearest spring.",
    "The committee will meet again on the second Thursday of October.",
    "You have until tomorrow evening to change your mind.",
)
"""Easy words, all phonemes of English, no names."""


def is_english(cut: MonoCut) -> bool:
    """Whether an utterance is in the language of our sentences."""
    return (cut.supervisions[0].language or "en").startswith("en")
