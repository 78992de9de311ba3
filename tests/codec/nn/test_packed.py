"""codec.nn.packed against `nn.Linear`."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from codec.nn import packed as module
from codec.nn.lora import add_lora, merge
from codec.nn.packed import PackedLinear, laid_out, packed, side_by_side


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what was multiplied with a weight laid out."""
    seen: list[tuple[int, ...]] = []
    plain = module.product

    def listening(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return plain(x, *rest)

    monkeypatch.setattr(module, "product", listening)
    return seen


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are laid out wherever they can be, faster or not."""
    monkeypatch.setattr(module, "faster", lambda dtype: True)


needs_layout = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="torch has no such product"
)


def like(layer: nn.Linear, x: torch.Tensor) -> None:
    """It gives what `nn.Linear` does."""
    plain = nn.functional.linear(x, layer.weight, layer.bias)
    atol = 1e-5 if x.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(layer(x), plain, atol=atol, rtol=atol)


@needs_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24, 8), (2, 7, 8), (1, 8), (0, 8)])
def test_products_are_those_of_linear(
    dtype: torch.dtype, bias: bool, shape: tuple[int, ...], products: list[tuple[int, ...]]
) -> None:
    layer = PackedLinear.of(nn.Linear(8, 12, bias=bias)).to(dtype)
    with torch.no_grad():
        layer(torch.zeros(1, 8, dtype=dtype))  # lays it out, and tries it
        products.clear()
        for x in (torch.randn(shape, dtype=dtype), torch.randn(*shape[:-1], 16, dtype=dtype)[..., ::2]):
            like(layer, x)
    assert products == [shape] * 2


@needs_layout
@torch.no_grad()
def test_a_weight_that_changes_is_laid_out_anew() -> None:
    layer, x = PackedLinear.of(nn.Linear(8, 12)), torch.randn(3, 8)
    like(layer, x)
    layer.weight += 1
    like(layer, x)
    layer.load_state_dict(nn.Linear(8, 12).state_dict())
    like(layer, x)
    layer.weight = nn.Parameter(torch.randn(12, 8))
    like(layer, x)
    layer.to(torch.bfloat16).to(torch.float64)
    like(layer, x.double())


def test_gradients_autocast_and_adapters_go_through_linear(products: list[tuple[int, ...]]) -> None:
    model = nn.Sequential(nn.Linear(8, 12, bias=False))
    packed(model)
    layer, x = model[0], torch.randn(3, 8)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad():
        add_lora(model, 2)
        for name, adapter in model.named_parameters():
            if name.endswith(".up"):
                adapter.normal_()
        both = side_by_side(x, model[0], model[0])
        torch.testing.assert_close(both, torch.cat([nn.functional.linear(x, model[0].weight)] * 2, -1))
        assert not products
        merge(model)
        like(model[0], x)


@needs_layout
def test_layers_side_by_side_are_one_product(products: list[tuple[int, ...]]) -> None:
    plain = [nn.Linear(8, n, bias=False) for n in (4, 6, 2)]
    layers, x = [PackedLinear.of(layer) for layer in plain], torch.randn(2, 5, 8)
    wanted = torch.cat([layer(x) for layer in plain], -1)
    torch.testing.assert_close(side_by_side(x, *layers), wanted)
    assert not products  # gradients are wanted
    with torch.no_grad():
        torch.testing.assert_close(side_by_side(x, *layers), wanted, atol=1e-5, rtol=1e-5)
        assert products == [(1, 8), x.shape]  # the first is a trial
        plain[1].weight.zero_()  # the same parameter
        assert not side_by_side(x, *layers)[..., 4:10].any()
        biased = PackedLinear.of(nn.Linear(8, 3))
        found = side_by_side(x, biased, layers[0])
        torch.testing.assert_close(found, torch.cat([biased(x), plain[0](x)], -1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_model_keeps_its_parameters_and_can_be_copied() -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.Sequential(nn.ReLU(), nn.Linear(12, 3)))
    before, x = dict(model.named_parameters()), torch.randn(3, 8)
    wanted = model(x)
    packed(model)
    packed(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and all(after[n] is before[n] for n in before)
    torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)
    copy = deepcopy(model)
    copy.get_parameter("0.weight").zero_()
    torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(copy(x), wanted)


@pytest.mark.parametrize(
    ("known", "full", "half"),
    [
        ({"avx512_f": True, "cpu_name": "AMD EPYC", "avx512_bf16": True}, True, True),
        ({"avx512_f": True, "cpu_name": "Intel(R) Xeon(R)", "amx_bf16": True}, False, True),
        ({"avx512_f": False, "cpu_name": "AMD EPYC"}, False, False),
        ({}, False, False),
    ],
)
def test_only_where_it_is_faster(
    known: dict[str, object], full: bool, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert (module.faster(torch.float32), module.faster(torch.bfloat16)) == (full, half)
    assert laid_out(torch.zeros(4, 4, dtype=torch.float64)) is None
    if not full:
        assert laid_out(torch.zeros(4, 4)) is None
