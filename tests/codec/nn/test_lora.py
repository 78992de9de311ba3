import pytest
import torch
from torch import nn

from codec.nn.lora import add_lora, lora_state, merge, merge_state


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 16, bias=False), nn.Linear(16, 3))


def trained(model: nn.Module) -> nn.Module:
    x, y = torch.randn(8, 12), torch.randn(8, 3)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return model


def test_a_fresh_adapter_changes_nothing():
    model, x = network(), torch.randn(4, 12)
    before = model(x)
    add_lora(model, 2)
    assert torch.equal(model(x), before)


def test_only_the_adapters_of_layers_wide_enough_learn():
    model = network()
    add_lora(model, 2)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {f"{i}.parametrizations.weight.0.{part}" for i in (0, 2) for part in ("up", "down")}
    frozen = {k: v.clone() for k, v in model.named_parameters() if not v.requires_grad}
    trained(model)
    assert all(torch.equal(dict(model.named_parameters())[k], v) for k, v in frozen.items())


def test_a_merged_model_is_a_plain_one_that_does_the_same():
    model, x = network(), torch.randn(4, 12)
    before = model(x)
    add_lora(model, 2)
    trained(model)
    wanted = model(x)
    assert not torch.allclose(wanted, before, atol=1e-3)
    merge(model)
    assert set(model.state_dict()) == set(network().state_dict())
    torch.testing.assert_close(model(x), wanted, atol=1e-6, rtol=1e-5)


def test_the_small_state_carries_what_was_learnt_to_another_copy():
    model, other, x = network(), network(), torch.randn(4, 12)
    add_lora(model, 2, alpha=3.0)
    trained(model)
    state = lora_state(model)
    assert sum(t.numel() for t in state.values()) == 2 * (12 + 16) + 2 * (16 + 16)
    merge_state(other, state)
    torch.testing.assert_close(other(x), model(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["9", "2x", "1"])
def test_an_adapter_of_another_model_is_refused(name):
    with pytest.raises(ValueError, match=f"layer '{name}' is of another model"):
        merge_state(network(), {f"{name}.up": torch.zeros(16, 2), f"{name}.down": torch.zeros(2, 16)})


def test_rank_must_be_positive():
    with pytest.raises(ValueError, match="rank 0"):
        add_lora(network(), 0)
