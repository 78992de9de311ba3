"""The trained tokenizer, applied to a prepared corpus: tokens and durations for the LM and the acoustic decoder."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from codec.errors import UserError
from codec.tokenizer.model import Tokenizer, starts_to_durations


class TokenExtractor:
    """Frames and phonemes of some utterances -> their tokens and tokens per phoneme; for `tts.data.extract`."""

    def __init__(self, tokenizer: Tokenizer, device: str = "cpu") -> None:
        self.tokenizer, self.device = tokenizer.eval().to(device), device

    def __call__(
        self, frames: list[npt.NDArray[np.float32]], phonemes: list[list[int]]
    ) -> Sequence[tuple[Sequence[int], Sequence[int]] | None]:
        """For each utterance its tokens and durations, None where it cannot be aligned."""
        rows = [torch.from_numpy(one) for one in frames]
        frame_lens = torch.tensor([len(one) for one in rows], device=self.device)
        floor = self.tokenizer.spec.frames.floor
        padded = pad_sequence(rows, batch_first=True, padding_value=floor).to(self.device)
        tokens, lens = self.tokenizer.encode(padded, frame_lens)
        log_probs = self.tokenizer.token_log_probs(tokens, lens).cpu()
        answers: list[tuple[list[int], list[int]] | None] = []
        for row, n, row_probs, wanted in zip(
            tokens.tolist(), lens.tolist(), log_probs, phonemes, strict=True
        ):
            try:
                starts = self.tokenizer.starts(
                    row_probs[: n * self.tokenizer.reads_per_token], torch.tensor(wanted)
                )
                answers.append((row[:n], starts_to_durations(starts, n)))
            except UserError:
                answers.append(None)
        return answers
