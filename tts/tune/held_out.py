"""Whether a stage has learnt anything that helps: measured on what it was not trained on, before and after."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple, TypeVar

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor, nn

from tts.acoustic.decoder import FlowDecoder
from tts.data.datasets import AcousticDataset, LMDataset
from tts.lm.model import SpeechLM
from tts.pipeline import TTS, Settings
from tts.voice import Voice

DRAWS = 4
"""Times that an utterance is measured; the flow's noise differs each time, the same before and after."""
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
ENOUGH = 0.9

M = TypeVar("M", bound=nn.Module)


class Choice(NamedTuple):
    """How far to go from the base to what was learnt, 0 for not at all; and the losses there and before."""

    strength: float
    before: float
    after: float


def best_strength(base: nn.Module, learnt: nn.Module, cuts: Sequence[Cut]) -> Choice:
    """The smallest strength that brings nearly all of what held-out speech can gain (`ENOUGH` of it).

    Between the weights of a model and those of its tuning lie models that have the new without having lost the old
    (Wortsman et al. 2022, arXiv 2109.01903): of seconds of speech, half of the way is often better than all of it.
    """
    before = held_out_loss(base, cuts)
    losses = {strength: held_out_loss(blended(base, learnt, strength), cuts) for strength in STRENGTHS}
    gain = before - min(losses.values())
    if gain <= 0:
        return Choice(0.0, before, before)
    strength = next(one for one, loss in losses.items() if before - loss >= ENOUGH * gain)
    return Choice(strength, before, losses[strength])


@torch.no_grad()
def blended(base: M, learnt: M, strength: float) -> M:
    """A model between two of the same shape, in its weights; those of the base at 0."""
    made, start = deepcopy(learnt), base.state_dict()
    for name, weight in made.state_dict().items():
        if weight.is_floating_point():
            weight.copy_(torch.lerp(start[name], weight, strength))
    return made


@torch.no_grad()
def held_out_loss(model: nn.Module, cuts: Sequence[Cut]) -> float:
    """The mean loss of an LM or an acoustic decoder over utterances with tokens.

    Prompts, noise and times are drawn, the same for every model; nothing is dropped or hidden.
    """
    loss_of = _flow_loss(model, cuts) if isinstance(model, FlowDecoder) else _lm_loss(model, cuts)
    losses = []
    with torch.random.fork_rng(devices=[]):
        for draw in range(DRAWS):
            torch.manual_seed(draw)
            losses += [float(loss_of(CutSet.from_cuts([cut.with_custom("epoch", draw)]))) for cut in cuts]
    return sum(losses) / len(losses)


def _flow_loss(model: FlowDecoder, cuts: Sequence[Cut]) -> Callable[[CutSet], Tensor]:
    model.drop = model.drop_phonemes = model.drop_tokens = 0.0
    dataset = AcousticDataset(CutSet.from_cuts(cuts))

    def loss(some: CutSet) -> Tensor:
        batch = dataset[some]
        return model.loss(batch.frames, batch.tokens, batch.prompt_lens, batch.lens)

    return loss


def _lm_loss(model: nn.Module, cuts: Sequence[Cut]) -> Callable[[CutSet], Tensor]:
    assert isinstance(model, SpeechLM)
    dataset = LMDataset(CutSet.from_cuts(cuts), layout=model.layout)

    def loss(some: CutSet) -> Tensor:
        batch = dataset[some]
        return model.loss(batch.ids, batch.labels)[0]

    return loss


def reading_error(tts: TTS, said: Mapping[str, Sequence[str]], voices: Mapping[str, Voice]) -> float:
    """The share of phonemes that the tokenizer misreads in what the LM writes; no sound is made.

    A loss over recordings does not tell it: there every token follows on right ones, here on the LM's own.

    Args:
        tts: of whose LM.
        said: language -> sentences, each written in every voice.
        voices: by name.
    """
    wrong = total = 0.0
    for voice in voices.values():
        for language, texts in said.items():
            for written in tts.write(texts, voice, Settings(language=language, candidates=1, retries=0)):
                wanted = len(tts.model.symbols.segments(written.utterance.ids))
                wrong, total = wrong + written.quality.error * wanted, total + wanted
    return wrong / max(1.0, total)
