"""How much of the voice the tokens give away: a linear layer that guesses the speaker from token counts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Probe(NamedTuple):
    """Share of held-out utterances whose speaker was guessed, and the share that guessing blindly gives."""

    accuracy: float
    chance: float


def speaker_probe(rows: Sequence[Tensor], speakers: Tensor, codes: int, *, steps: int = 200) -> Probe:
    """Fit logistic regression from an utterance's code histogram to its speaker; test on every third utterance.

    Args:
        rows: tokens (N,) of each utterance.
        speakers: (utterances,) speaker of each; those with fewer than 3 utterances are left out.
        codes: codebook size.
        steps: of full-batch Adam.
    """
    counts = torch.bincount(speakers)
    chosen = [i for i, s in enumerate(speakers.tolist()) if counts[s] >= 3]
    if not chosen:
        return Probe(0.0, 0.0)
    labels = torch.unique(speakers[chosen], return_inverse=True)[1]
    histograms = torch.stack([torch.bincount(rows[i], minlength=codes).float() for i in chosen])
    x = (histograms / histograms.sum(1, keepdim=True).clamp(min=1)).sqrt()
    seen: dict[int, int] = {}
    test = []
    for label in labels.tolist():
        test.append(seen.get(label, 0) % 3 == 2)
        seen[label] = seen.get(label, 0) + 1
    held = torch.tensor(test)
    linear = torch.nn.Linear(codes, int(labels.max()) + 1)
    optimizer = torch.optim.Adam(linear.parameters(), 0.05, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(linear(x[~held]), labels[~held]).backward()
        optimizer.step()
    right = (linear(x[held]).argmax(1) == labels[held]).float().mean()
    return Probe(float(right), 1.0 / len(seen))
