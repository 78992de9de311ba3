"""The trained tokenizer, applied to a prepared corpus: tokens and durations for the LM and the acoustic decoder."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.nn.utils.rnn import pad_sequence

from codec.errors import UserError
from codec.tokenizer.model import Tokenizer, starts_to_durations
from tts.data.extract import ALONE, Team

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
PATIENCE = timedelta(days=7)  # with the slowest process


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


@contextmanager
def team() -> Iterator[Team]:
    """The processes that torchrun started together with this one; without torchrun this one alone."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield ALONE
        return
    ours = not distributed.is_initialized()
    if ours:
        distributed.init_process_group(
            "gloo", timeout=PATIENCE
        )  # they only wait for each other: no GPU is needed
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size(), distributed.barrier)
    finally:
        if ours:
            distributed.destroy_process_group()


def own_device(device: str, us: Team) -> str:
    """The device of this process: of several GPUs of a machine, its own."""
    if device != "cuda":
        return device
    return f"cuda:{us.rank % torch.cuda.device_count()}"


def processes_of(trainer: Mapping[str, Any]) -> int:
    """How many processes a training with these settings has on this machine."""
    devices = trainer["devices"]
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return max(1, len(devices))
    if str(devices).isdecimal():
        return max(1, int(devices))
    return max(1, torch.cuda.device_count()) if trainer["accelerator"] in ("auto", "gpu", "cuda") else 1


def run_team(processes: int, command: Sequence[str]) -> None:
    """Run a command of train.py in several processes.

    Raises:
        UserError: it failed; what it said stands above.
    """
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    done = subprocess.run([*torchrun, str(TRAIN), *command], check=False)
    if done.returncode:
        raise UserError(f"`train.py {command[0]}` in {processes} processes failed, see above")
