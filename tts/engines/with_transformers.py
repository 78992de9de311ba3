"""The LM in transformers' Llama."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.errors import UserError
from tts.checkpoint import Model
from tts.engines.engine import Ids, alike, padded
from tts.export.note import FILE, Note


class TransformersEngine:
    """transformers' ``LlamaForCausalLM``.

    Args:
        model: whose LM it is.
        folder: an export of it; by default the model's own weights, not a copy.

    Raises:
        UserError: transformers is not installed, or the folder is no export of this model.
    """

    def __init__(self, model: Model, folder: Path | None = None) -> None:
        try:
            from transformers import LlamaConfig, LlamaForCausalLM
        except ImportError as error:
            raise UserError('transformers is not installed; run pip install ".[export]"') from error
        self.device = model.acoustic.mean.device
        if folder is None:
            ends = dict.fromkeys(
                ("bos_token_id", "eos_token_id", "pad_token_id")
            )  # nothing here ends by itself
            config = LlamaConfig(**asdict(model.lm.llama.config), tie_word_embeddings=False, **ends)
            with torch.device("meta"):
                self.llama = LlamaForCausalLM(config)
            self.llama.load_state_dict(model.lm.llama.state_dict(), strict=True, assign=True)
            self.llama.model.rotary_emb = type(self.llama.model.rotary_emb)(
                config
            )  # its angles are no weights
            self.llama.eval().to(self.device)
            return
        if not (folder / FILE).is_file():
            raise UserError(
                f"{folder}: no export of this project; write it with python -m tts.export --to transformers"
            )
        Note.read((folder / FILE).read_text(encoding="utf-8"), str(folder)).require(model, str(folder))
        self.llama = LlamaForCausalLM.from_pretrained(folder).eval().to(self.device)

    def start(self, rows: int, positions: int) -> "_Session":
        """See `Engine`."""
        return _Session(self.llama, self.device)


class _Session:
    def __init__(self, llama: Any, device: torch.device) -> None:
        self.llama, self.device, self.past = llama, device, None
        self.seen: Tensor | None = None  # (B, S) 1 where a position is no padding

    def step(self, ids: Ids) -> Tensor:
        """See `Session`."""
        if self.seen is None:
            new, pads = padded(ids)
            self.seen = (torch.arange(new.shape[1]) >= pads[:, None]).long()
        else:
            new = torch.tensor(alike(ids))
            self.seen = torch.cat([self.seen, torch.ones_like(new)], 1)
        positions = (self.seen.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
        out = self.llama(
            input_ids=new.to(self.device),
            attention_mask=self.seen.to(self.device),
            position_ids=positions.to(self.device),
            past_key_values=self.past,
            use_cache=True,
            logits_to_keep=1,
        )
        self.past = out.past_key_values
        logits: Tensor = out.logits[:, -1].float().cpu()
        return logits
