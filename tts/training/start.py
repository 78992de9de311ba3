"""Weights to begin with: those of a finished model, also where the phoneme table has grown since."""

from pathlib import Path

import torch
from torch import Tensor, nn

from codec.errors import UserError
from codec.tokenizer.model import Tokenizer
from tts.acoustic.decoder import FlowDecoder
from tts.checkpoint import read_part
from tts.lm.model import SpeechLM
from tts.text.symbols import DEFAULT_SYMBOLS

State = dict[str, Tensor]
PHONEMES = "dit.phonemes_in.weight"
NEVER = -10.0  # logit of a symbol that nothing has been learnt of


def load_start(model: nn.Module, path: Path, table: list[str] | None = None) -> None:
    """Take over the weights of a finished part, in place.

    Args:
        model: of the same kind and sizes, except that its phoneme table may be longer: the rows of the symbols
            that both know are kept, those of new symbols begin so that none is ever read or announced. What the old
            model did it does still.
        path: the part's .safetensors file.
        table: the symbols that `model` is for; `DEFAULT_SYMBOLS` by default.

    Raises:
        UserError: no such part; or it is of another kind, of other sizes, or its phonemes are not the first ones
            of the table.
    """
    part, note = read_part(path)
    if type(part) is not type(model):
        raise UserError(
            f"start {path}: holds a {type(part).__name__}, the config a {type(model).__name__}; name the same stage"
        )
    state = part.state_dict()
    if isinstance(model, SpeechLM | Tokenizer):
        old, new = note["symbols"], DEFAULT_SYMBOLS.to_list() if table is None else table
        if new[: len(old)] != old:
            raise UserError(f"start {path}: its phoneme table is no beginning of the present one; train anew")
        state = extended(model, state, len(old))
    elif isinstance(model, FlowDecoder) and model.dit.symbols:
        state = told_more(model, state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        difference = " ".join(str(error).partition(":")[2].split())[:200]
        raise UserError(
            f"start {path}: of other sizes than the config's, which must be the same: {difference}"
        ) from error


def told_more(model: FlowDecoder, state: State) -> State:
    """The state of a decoder that was told fewer phonemes than `model` is, or none: what is new says nothing yet.

    Raises:
        UserError: it was told more.
    """
    rows = model.state_dict()[PHONEMES].clone()
    known = state.get(PHONEMES, rows[:0])
    if len(known) > len(rows):
        raise UserError("start: a decoder of more symbols than the config's; it must not have fewer")
    rows[: len(known)] = known
    return state | {PHONEMES: rows}


def extended(model: SpeechLM | Tokenizer, state: State, symbols: int) -> State:
    """The state of a model of `symbols` phonemes as one of `model`, which has as many or more.

    Raises:
        UserError: `model` has fewer.
    """
    known = model.layout.symbols if isinstance(model, SpeechLM) else model.symbols
    if known < symbols:
        raise UserError(
            f"start: a model of {symbols} symbols; the config has {known} and must not have fewer"
        )
    if known == symbols:
        return state
    state = dict(state)
    if isinstance(model, SpeechLM):
        fresh = model.state_dict()["llama.model.embed_tokens.weight"][symbols:known]
        rows = state["llama.model.embed_tokens.weight"]
        state["llama.model.embed_tokens.weight"] = torch.cat([rows[:symbols], fresh, rows[symbols:]])
        # no bias to tell the output layer "never" with; symbol 0 is padding, which no text has and none announced
        rows = state["llama.lm_head.weight"]
        state["llama.lm_head.weight"] = torch.cat(
            [rows[:symbols], rows[:1].repeat(known - symbols, 1), rows[symbols:]]
        )
    else:
        for name in ("before", "after"):
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            reads, dim = model.reads_per_token, weight.shape[1]
            grown = weight.new_zeros(reads, known, dim), bias.new_full((reads, known), NEVER)
            grown[0][:, :symbols], grown[1][:, :symbols] = weight.view(reads, -1, dim), bias.view(reads, -1)
            state[f"{name}.weight"], state[f"{name}.bias"] = grown[0].flatten(0, 1), grown[1].flatten()
    return state
