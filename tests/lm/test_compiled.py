"""Compiled steps against the modules whose weights they take."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from codec.errors import UserError
from tests.lm.test_llama import CONFIG, lively
from tts import TTS
from tts.checkpoint import Model
from tts.engines.choose import COMPILED, with_engine
from tts.lm.compiled import TOO_MANY, Compiled, prepare
from tts.lm.llama import Llama
from tts.lm.model import Request
from tts.lm.running import RunningBatch
from tts.lm.sampling import Sampling

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler here")


@pytest.fixture(scope="module")
def llama() -> Llama:
    """One for all tests: what costs is the compiler."""
    torch.manual_seed(0)
    made = lively()
    made.compiled = True
    return made


@needs_compiler
def test_steps_give_what_the_modules_give(llama: Llama) -> None:
    """Behind prefixes of any length, over buffers that grow, and for several new ids at once."""
    for first, capacity in ((9, 4), (3, 40), (1, 1)):
        pieces = torch.randint(CONFIG.vocab_size, (1, first + 7)).split([first, 1, 1, TOO_MANY - 1, 2], dim=1)
        with torch.no_grad():
            whole = llama(torch.cat(pieces, 1))  # without caches, through the modules
            caches = llama.new_caches(capacity)
            found = torch.cat([llama(piece, caches) for piece in pieces], 1)
        torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
        assert llama._packed is not None and llama._packed.compiled is not None
        assert all(cache.length == first + 7 for cache in caches)


@needs_compiler
@torch.no_grad()
def test_the_last_only_and_no_other_rows(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row without padding is compiled; batches, padded rows and many ids take the other ways."""
    seen = []
    plain = Compiled.step

    def listening(self: Compiled, ids: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        seen.append(tuple(ids.shape))
        return plain(self, ids, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Compiled, "step", listening)
    ids = torch.randint(CONFIG.vocab_size, (1, 12))
    caches = llama.new_caches()
    llama(ids[:, :6], caches)
    found = llama(ids[:, 6:8], caches, last_only=True)
    torch.testing.assert_close(found, llama(ids[:, :8])[:, -1:], atol=1e-4, rtol=1e-4)
    llama(ids[:, 8:], caches)
    assert seen == [(1, 2)]
    for pads in (None, torch.tensor([1, 0])):
        caches = llama.new_caches()
        llama(ids.expand(2, -1), caches, pads=pads)
        llama(ids[:, :1].expand(2, -1), caches, pads=pads)
    assert seen == [(1, 2)]


@needs_compiler
@torch.no_grad()
def test_weights_that_change_are_taken_anew(llama: Llama) -> None:
    ids = torch.randint(CONFIG.vocab_size, (1, 8))
    weight = llama.get_parameter("model.layers.1.self_attn.k_proj.weight")
    weight.mul_(1.5)
    try:
        caches = llama.new_caches()
        found = torch.cat([llama(piece, caches) for piece in ids.split([6, 1, 1], 1)], 1)
        torch.testing.assert_close(found, llama(ids), atol=1e-4, rtol=1e-4)
    finally:
        weight.div_(1.5)


@needs_compiler
def test_the_chain_writes_the_same_tokens(tiny_model: Path) -> None:
    """Written alone and in the batch that runs; the model it was made of stays as it is."""
    model = Model.load(tiny_model)
    lm = with_engine(model, COMPILED).lm
    assert lm.llama.compiled and not model.lm.llama.compiled
    request = Request(model.symbols.groups(model.symbols.encode("tˈɛn nˈaɪn")), seed=3)
    for sampling in (Sampling(temperature=0), Sampling()):
        (wanted,) = model.lm.generate([request], sampling)
        assert lm.generate([request], sampling) == [wanted]
        batch = RunningBatch(lm)
        steps = [batch.join(0, request, sampling)]
        while len(batch):
            steps += batch.step()
        assert [step.token for step in steps if step.token is not None] == list(wanted.tokens)


@needs_compiler
@torch.no_grad()
def test_8_bits(tiny_model: Path) -> None:
    """The weights that were stored so are the same; sums differ from the modules' by the scale's rounding."""
    llama = Model.load(tiny_model).lm.llama
    llama.precision, llama.compiled = "int8", True
    ids = torch.randint(50, (1, 9))
    caches = llama.new_caches()
    found = torch.cat([llama(piece, caches) for piece in ids.split([6, 1, 1, 1], 1)], 1)
    wanted = llama(ids)
    assert llama._packed is not None and llama._packed.compiled is not None
    assert llama._packed.compiled.model.head.rows.dtype == torch.int8
    assert (found - wanted).abs().max() < 0.03 * wanted.std()


def test_without_a_compiler(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand much more")

    monkeypatch.setattr(Compiled, "step", broken)
    with pytest.raises(
        UserError, match=r"engine 'compiled' cannot be used here .*No working C\+\+ compiler.*install them"
    ):
        TTS.load(tiny_model, engine="compiled")


def test_other_devices() -> None:
    with pytest.raises(UserError, match="engine 'compiled' is for the CPU"):
        prepare(Llama(CONFIG).to("meta"))
