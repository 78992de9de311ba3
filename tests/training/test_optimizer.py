"""Optimizers: which weights Muon takes, that two optimizers step as one, and that it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from codec.errors import UserError
from tts.lm.model import SpeechLM
from tts.training.lm import LMModule
from tts.training.optimizer import Chained, block_matrices


@pytest.fixture
def lm() -> SpeechLM:
    torch.manual_seed(0)
    return SpeechLM(
        symbols=20,
        codes=30,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )


def settled(lm: SpeechLM, kind: str) -> torch.optim.Optimizer:
    module = LMModule(lm, lr=0.01, warmup=1, total=100, optimizer=kind)  # type: ignore[arg-type]
    found: torch.optim.Optimizer = module.configure_optimizers()["optimizer"]
    return found


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(lm: SpeechLM) -> None:
    muon, adamw = settled(lm, "muon").optimizers  # type: ignore[attr-defined]
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    left = {id(p) for group in adamw.param_groups for p in group["params"]}
    for name, weight in lm.named_parameters():
        in_block = ".layers." in name and "norm" not in name
        assert (id(weight) in taken) == in_block, name
        assert (id(weight) in left) != in_block, name


def test_frozen_layers_stay_out(lm: SpeechLM) -> None:
    matrices = block_matrices(lm)
    matrices[0].requires_grad_(False)
    assert [id(p) for p in block_matrices(lm)] == [id(p) for p in matrices[1:]]


def train(lm: SpeechLM, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    ids = torch.randint(20, 50, (4, 24), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, _ = lm.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_goes_on_from_its_state_as_if_it_had_not_stopped(lm: SpeechLM) -> None:
    optimizer = settled(lm, "muon")
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    train(lm, optimizer, 3)
    other = copy.deepcopy(lm)
    follower = settled(other, "muon")
    follower.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(group["lr"] == 0.01 for group in follower.param_groups)
    assert train(other, follower, 3) == train(lm, optimizer, 3)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_it_learns_by_heart(kind: str, lm: SpeechLM) -> None:
    optimizer = settled(lm, kind)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    losses = train(lm, optimizer, 60)
    assert losses[0] > 3 and losses[-1] < 0.3


def test_a_rate_set_on_the_whole_is_set_on_the_parts() -> None:
    one, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    chained = Chained([torch.optim.SGD([one], 1.0), torch.optim.SGD([other], 1.0)])
    torch.optim.lr_scheduler.LambdaLR(chained, lambda step: 0.5)
    (one.sum() + other.sum()).backward()
    chained.step()
    assert torch.equal(one, torch.full((2, 2), 0.5)) and torch.equal(other, torch.full((3,), 0.5))
    chained.zero_grad()
    assert one.grad is None and other.grad is None


def test_a_checkpoint_of_another_optimizer_is_named(lm: SpeechLM) -> None:
    with pytest.raises(UserError, match="optimizer: adamw"):
        settled(lm, "muon").load_state_dict(settled(lm, "adamw").state_dict())


def test_cut_up_matrices_are_refused() -> None:
    from tts.training.optimizer import muon

    flat = nn.Parameter(torch.zeros(8))
    with pytest.raises(UserError, match="FSDP"):
        muon([flat], [{"params": [flat], "weight_decay": 0.0}], 0.1)
