"""How text and speech tokens become one sequence for the LM.

Vocabulary: the phoneme symbols (0 .. symbols - 1), then the specials, then the speech tokens. A sequence is

    BOS  g1 g2 .. gN  TEXT_END   g1 g2 [T1] g3 [T2] .. gN [T(N-1)] TEXT_END [TN]  EOS
    └────── the text ─────────┘  └─────────────────── the stream ──────────────────┘

where g_i is one phoneme with its stress mark, length mark and the punctuation behind it, and [T_i] are the
speech tokens aligned to it. In the stream the model announces a phoneme before it says it, so it can neither lose
its place nor skip: what it decides is how long each phoneme is and how it sounds. Announcing one phoneme ahead
lets [T_i] know what follows. After ELLA-V (Song et al. 2024, arXiv 2401.07333); the same sequence is plain
autoregression, so any engine that runs a Llama runs this one.

A voice prompt is the beginning: its phonemes stand before the target's, its stream is given, the model goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Groups = Sequence[tuple[int, ...]]

IGNORE = -100


@dataclass(frozen=True)
class Layout:
    """Ids of the shared vocabulary, and sequences built from it.

    Attributes:
        symbols: size of the phoneme table.
        codes: number of different speech tokens.
    """

    symbols: int
    codes: int

    @property
    def bos(self) -> int:
        return self.symbols

    @property
    def text_end(self) -> int:
        return self.symbols + 1

    @property
    def eos(self) -> int:
        return self.symbols + 2

    @property
    def first_code(self) -> int:
        """Id of speech token 0."""
        return self.symbols + 3

    @property
    def vocab_size(self) -> int:
        return self.first_code + self.codes

    def text(self, groups: Groups) -> list[int]:
        """BOS, all phonemes, TEXT_END: what stands before the stream."""
        return [self.bos, *(i for group in groups for i in group), self.text_end]

    def announced(self, groups: Groups, number: int) -> Sequence[int]:
        """What is fed ahead of a group: its symbols, the end of the text behind the last one, then nothing."""
        if number < len(groups):
            return groups[number]
        return (self.text_end,) if number == len(groups) else ()

    def stream(self, groups: Groups, tokens: Sequence[int], durations: Sequence[int]) -> list[int]:
        """The stream of a whole utterance without EOS; `durations` says how many tokens each group has.

        Raises:
            ValueError: groups, tokens and durations do not belong together.
        """
        if len(groups) != len(durations) or sum(durations) != len(tokens):
            raise ValueError(
                f"{len(groups)} groups, {len(durations)} durations summing to {sum(durations)}, {len(tokens)} tokens"
            )
        ids, at = list(groups[0]) if groups else [], 0
        for i, duration in enumerate(durations):
            ids += self.announced(groups, i + 1)
            ids += [self.first_code + token for token in tokens[at : at + duration]]
            at += duration
        return ids

    def __call__(
        self, groups: Groups, tokens: Sequence[int], durations: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """A training example: ids and, for each position, the id that must follow.

        The text is given at inference, so it is not learnt; neither is the first group of the stream.
        """
        text, stream = self.text(groups), self.stream(groups, tokens, durations)
        ids = [*text, *stream, self.eos]
        labels = [IGNORE] * len(ids)
        given = len(text) + (len(groups[0]) if groups else 0)
        labels[given - 1 : -1] = ids[given:]
        return ids[:-1], labels[:-1]
