"""Whether a stage has learnt anything that helps: measured on what it was not trained on, before and after."""

from collections.abc import Callable, Mapping, Sequence

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
            for written in tts.write(texts, voice, Settings(language=language, retries=0)):
                wanted = len(tts.model.symbols.segments(written.utterance.ids))
                wrong, total = wrong + written.quality.error * wanted, total + wanted
    return wrong / max(1.0, total)
