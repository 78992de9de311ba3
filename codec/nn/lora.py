"""Low-rank adapters: a frozen weight plus the product of two thin matrices (Hu et al. 2021, arXiv 2106.09685).

They sit on the weights as torch parametrisations, so a model with adapters runs, trains and saves like any other,
and `merge` leaves one without a trace of them.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """weight (out, in) -> weight + up @ down * alpha / rank. Starts as the identity: `up` is zero."""

    def __init__(self, out_features: int, in_features: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).to(weight.dtype) * self.scale


def add_lora(model: nn.Module, rank: int, *, alpha: float | None = None) -> None:
    """Freeze a model and put an adapter on every linear layer, in place.

    Args:
        rank: of the products; a layer thinner than twice the rank is left frozen as it is, the adapter would be no
            smaller than the layer.
        alpha: the products are scaled by ``alpha / rank``; by default ``2 * rank``.
    """
    if rank < 1:
        raise ValueError(f"rank {rank}: must be at least 1")
    model.requires_grad_(False)
    for layer in list(_linear(model)):
        if min(layer.weight.shape) >= 2 * rank:
            out_features, in_features = layer.weight.shape
            adapter = LowRank(out_features, in_features, rank, 2.0 * rank if alpha is None else alpha)
            # unsafe: nothing to check, the shape stays; a check would run the layer's weight through it once more
            parametrize.register_parametrization(layer, "weight", adapter, unsafe=True)


def merge(model: nn.Module) -> None:
    """Add what the adapters have learnt to the weights, and take the adapters off, in place."""
    for layer in _linear(model):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """What a merge would add to each weight, as its two factors: ``<layer>.up`` (scaled) and ``<layer>.down``."""
    state = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            adapter = cast(Any, layer.parametrizations)["weight"][0]
            assert isinstance(adapter, LowRank)
            state[f"{name}.up"] = adapter.up.detach() * adapter.scale
            state[f"{name}.down"] = adapter.down.detach()
    return state


def merge_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Add a `lora_state` to a model without adapters, in place.

    Raises:
        ValueError: the state names a layer the model does not have, or of another shape.
    """
    for name in [key.removesuffix(".up") for key in state if key.endswith(".up")]:
        try:
            weight = cast(Tensor, model.get_submodule(name).weight)
            up, down = state[f"{name}.up"], state[f"{name}.down"]
            fits = weight.shape == (len(up), down.shape[1])
        except (AttributeError, KeyError):
            fits = False
        if not fits:
            raise ValueError(f"the adapter of layer {name!r} is of another model")
        with torch.no_grad():
            weight += (up.float() @ down.float()).to(weight.dtype)


def _linear(model: nn.Module) -> Iterator[nn.Linear]:
    return (module for module in model.modules() if isinstance(module, nn.Linear))
