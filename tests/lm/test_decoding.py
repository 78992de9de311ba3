"""Steps over packed weights against the modules they were taken from."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from codec.nn.attention import KVCache, KVTable
from codec.nn.lora import add_lora, merge
from tests.lm.test_llama import CONFIG, lively
from tts.lm.decoding import MOST_ROWS, Packed, matrix
from tts.lm.llama import Llama


def with_modules(
    llama: Llama, pieces: Sequence[Tensor], pads: Tensor | None = None, *, last_only: bool = False
) -> tuple[list[Tensor], list[KVCache]]:
    """Logits of one piece after another, never by steps, and the caches then."""
    caches, out = llama.new_caches(capacity=4), []
    for piece in pieces:
        with torch.enable_grad():  # nothing is packed where gradients might be wanted
            out.append(llama(piece, caches, pads=pads, last_only=last_only).detach())
    return out, caches


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of ids that went through `Packed.step`, as they come."""
    seen: list[tuple[int, ...]] = []
    plain = Packed.step

    def listening(self: Packed, ids: Tensor, *args: object, **options: object) -> Tensor:
        seen.append(tuple(ids.shape))
        return plain(self, ids, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Packed, "step", listening)
    return seen


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_a_table_are_what_each_is_alone(packed: bool, steps: list[tuple[int, ...]]) -> None:
    """With positions fed on trial, which are taken back: the last three of a row, its last one, none."""
    llama, table = lively(), KVTable()
    rows = torch.randint(50, (3, 30)).split(1)
    with torch.inference_mode():
        for row, length in zip(rows, (5, 2, 9), strict=True):
            llama(row[:, :length], caches := llama.new_caches())
            table.add(caches)
    fed, found = [5, 2, 9], []
    for vain in ([3, 1, 0], [0, 2, 1], [1, 0, 3]):
        ids = torch.cat([row[:, n : n + 4] for row, n in zip(rows, fed, strict=True)])
        with torch.inference_mode(packed):  # nothing is packed where gradients might be wanted
            logits = llama(ids, table).detach()
        for row, count in enumerate(vain):
            table.lengths[row] += 4 - count
            found.append((row, fed[row], logits[row]))
            fed[row] += 4 - count
    assert len(steps) == (3 if packed else 0)
    for row, at, logits in found:
        torch.testing.assert_close(logits, llama(rows[row])[0, at : at + 4].detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("last_only", [False, True])
@torch.no_grad()
def test_steps_give_what_the_modules_give(
    batch: int, padded: bool, last_only: bool, steps: list[tuple[int, ...]]
) -> None:
    llama = lively()
    pieces = torch.randint(50, (batch, 18)).split([9, 1, 1, 3, 1, 2, 1], dim=1)
    pads = torch.tensor([4, 0, 11][:batch]) if padded else None
    expected, their_caches = with_modules(llama, pieces, pads, last_only=last_only)
    assert not steps

    caches = llama.new_caches(capacity=4)
    found = [llama(piece, caches, pads=pads, last_only=last_only) for piece in pieces]

    assert steps == [(batch, n) for n in (1, 1, 3, 1, 2, 1)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    new = torch.zeros(batch, 2, 1, 8)
    for cache, other in zip(caches, their_caches, strict=True):
        for kept, wanted in zip(cache.append(new, new), other.append(new, new), strict=True):
            torch.testing.assert_close(kept, wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_positions_past_the_first_table() -> None:
    llama = lively()
    ids = torch.randint(50, (1, 525))
    caches = llama.new_caches()
    llama(ids[:, :508], caches)
    found = torch.cat([llama(one, caches) for one in ids[:, 508:].split(1, 1)], 1)
    torch.testing.assert_close(found, llama(ids)[:, 508:], atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_many_new_ids_at_once_take_the_modules(steps: list[tuple[int, ...]]) -> None:
    llama = lively()
    caches = llama.new_caches()
    llama(torch.randint(50, (1, 5)), caches)
    llama(torch.randint(50, (1, MOST_ROWS + 1)), caches)
    assert not steps


@torch.no_grad()
def test_weights_that_change_are_taken_anew(steps: list[tuple[int, ...]]) -> None:
    """In place, by loading, by other tensors, and by adapters: on and merged."""
    llama = lively()
    ids = torch.randint(50, (1, 8))

    def changed(other: Llama) -> None:
        pieces = ids.split([6, 1, 1], 1)
        caches = other.new_caches()
        found = [other(piece, caches, last_only=True) for piece in pieces]
        for mine, theirs in zip(found, with_modules(other, pieces, last_only=True)[0], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)

    changed(llama)
    llama.get_parameter("model.layers.1.self_attn.k_proj.weight").mul_(1.5)
    changed(llama)
    llama.load_state_dict(lively().state_dict())
    changed(llama)
    llama.load_state_dict(lively().state_dict(), assign=True)
    changed(llama)
    changed(copy.deepcopy(llama))
    steps.clear()
    add_lora(llama, 4)
    for name, parameter in llama.named_parameters():
        if name.endswith("original0") or "down" in name or "up" in name:
            parameter.add_(0.01)
    changed(llama)
    assert not steps, "adapters are not in the packed weights"
    merge(llama)
    changed(llama)
    assert steps


def test_training_and_state_know_nothing_of_it() -> None:
    llama = lively()
    names = list(llama.state_dict())
    ids = torch.randint(50, (1, 6))
    with torch.inference_mode():
        caches = llama.new_caches()
        llama(ids, caches)
        llama(ids[:, :1], caches)
    assert llama._packed is not None
    assert list(llama.state_dict()) == names
    llama.train()(ids).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in llama.parameters())
    llama(ids, llama.new_caches())
    assert llama._packed is None


@torch.no_grad()
def test_another_dtype_takes_the_modules(steps: list[tuple[int, ...]]) -> None:
    llama = lively().bfloat16()
    caches = llama.new_caches()
    llama(torch.randint(50, (1, 5)), caches)
    llama(torch.randint(50, (1, 1)), caches)
    assert not steps


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("rows", [1, 5])
@torch.no_grad()
def test_a_matrix_is_its_layers_side_by_side(precision: str, rows: int) -> None:
    layers = [torch.nn.Linear(64, n, bias=False) for n in (32, 16, 48)]
    norm, x = torch.rand(64) + 0.5, torch.randn(rows, 64)
    expected = torch.cat([layer(x * norm) for layer in layers], 1)
    found = matrix(layers, precision, norm)(x)  # type: ignore[arg-type]
    off = float((found - expected).norm() / expected.norm())
    assert off < (1e-6 if precision == "float32" else 0.02)


@torch.no_grad()
def test_int8_steps_are_close_and_alone_as_in_a_batch() -> None:
    llama = lively(CONFIG)
    prefix, new = torch.randint(50, (3, 9)), torch.randint(50, (3, 4))

    def run(rows: slice) -> Tensor:
        caches = llama.new_caches()
        llama(prefix[rows], caches)
        return torch.cat([llama(one, caches) for one in new[rows].split(1, 1)], 1)

    exact = run(slice(None))
    llama.precision = "int8"
    found = run(slice(None))
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.1
    for row in range(3):
        torch.testing.assert_close(run(slice(row, row + 1))[0], found[row], atol=0.1, rtol=0.05)
