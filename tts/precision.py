"""In how many bits a model computes when it speaks: float32 as trained, or fewer where that is faster."""

from copy import deepcopy
from dataclasses import replace
from typing import Literal, get_args

import torch

from codec.errors import UserError
from codec.nn import packed
from tts.checkpoint import Model

Precision = Literal["float32", "flow16", "mixed", "auto"]
"""float32: everything as trained. flow16: the blocks of the flow in bfloat16; what is said is the same. mixed: the LM's
steps over 8-bit weights, too. auto: mixed on a processor that multiplies bfloat16 itself, else float32."""


def in_precision(model: Model, precision: Precision) -> Model:
    """The model to speak with; the one given stays as it is.

    Raises:
        UserError: there is no such precision.
    """
    if precision not in get_args(Precision):
        raise UserError(f"precision {precision!r} is unknown; give one of {', '.join(get_args(Precision))}")
    device = model.acoustic.mean.device
    if precision == "float32" or (precision == "auto" and not multiplies_bfloat16(device)):
        return model
    acoustic = deepcopy(model.acoustic)
    acoustic.dit.lower(torch.bfloat16)
    if precision == "flow16":
        return replace(model, acoustic=acoustic)
    lm = deepcopy(model.lm)
    lm.llama.precision = "int8"
    return replace(model, acoustic=acoustic, lm=lm)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 have instructions of their own there: elsewhere they are slower than float32's."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and packed.multiplies_bfloat16()
