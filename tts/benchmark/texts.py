"""What is spoken: a passage of which any number of words can be taken, and sentences to make at once."""

PASSAGE = (
    "The old harbour was quiet when the first boat came. A man in a grey coat stood waiting for it. "
    "He had brought a lamp, two blankets and a basket of bread, because nights on the island would be long. "
    "Nobody on the pier asked him where he was going, and he was glad that he need not say it. "
    "The boat turned slowly, its engine coughing in the cold air, while gulls rose from the roofs of the town. "
    "By noon the wind had dropped, and the water lay as flat and bright as a sheet of new tin. "
    "He thought of the people who had lived there before him, and wondered which of their doors would still open."
)
"""120 words; the first 10, 20, 40, 60, 80, 100 and all are whole sentences."""

SENTENCES = (
    "The lamp in the window burned all night long.",
    "Please close the gate behind you when you leave.",
    "She counted the coins twice before she put them away.",
    "Rain is expected in the valley late this afternoon.",
    "Nobody had seen the brown dog since early Monday morning.",
    "The last train to the coast leaves at a quarter past nine.",
    "He wrote the number on the back of his hand.",
    "Apples, pears and plums were stacked beside the wooden door.",
    "The engineer shook her head and folded the drawing again.",
    "We walked along the river until the path came to an end.",
    "A thin line of smoke rose over the far side of the hill.",
    "They had promised to be back before the shops closed.",
    "The teacher opened the window, and the whole class looked out.",
    "Three of the boxes were empty, and the fourth was locked.",
    "It was warm enough to sit outside without a coat.",
    "Turn left at the church, then follow the road down to the lake.",
)


def words(count: int) -> str:
    """So many words of the passage, which begins again where it ends; the last one ends a sentence."""
    taken: list[str] = []
    while len(taken) < count:
        taken += PASSAGE.split()[: count - len(taken)]
    return " ".join(taken).rstrip(".,") + "."
