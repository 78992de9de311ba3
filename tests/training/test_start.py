"""Training that begins with the weights of another model, with more phonemes, or with adapters alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codec.errors import UserError
from codec.tokenizer.fsq import FSQ
from codec.tokenizer.model import Tokenizer
from tts.acoustic.decoder import FlowDecoder
from tts.acoustic.dit import DiT
from tts.checkpoint import write_part
from tts.data.batches import IGNORE, LMBatch
from tts.data.datasets import pad
from tts.lm.model import Aligned, Bounds, Request, SpeechLM
from tts.lm.sampling import Sampling
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.lm import LMModule
from tts.training.start import load_start

KNOWN = len(DEFAULT_SYMBOLS)
CODES = 16
ENGLISH = Aligned([(5,), (6, 7), (8,)], [1, 2, 3, 4, 5, 6], [2, 2, 2])
NEW = ["ꟸ", "ꟹ"]  # two symbols that the table has not
SECOND = Aligned([(KNOWN,), (6,), (KNOWN + 1,)], [9, 9, 8, 7, 7], [2, 1, 2])


def lm_config(symbols: int = KNOWN) -> dict[str, Any]:
    return {
        "class_path": "tts.lm.model.SpeechLM",
        "init_args": {
            "symbols": symbols,
            "codes": CODES,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
    }


def test_a_decoder_that_is_told_more_phonemes_or_any_goes_on_as_it_was(tmp_path: Path) -> None:
    def decoder(symbols: int) -> FlowDecoder:
        torch.manual_seed(symbols)
        made = FlowDecoder(DiT(dim=32, layers=1, heads=2, hidden=48, symbols=symbols))
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.1)
        return made

    def config(symbols: int) -> dict[str, Any]:
        sizes = {"dim": 32, "layers": 1, "heads": 2, "hidden": 48, "symbols": symbols}
        dit = {"class_path": "tts.acoustic.dit.DiT", "init_args": sizes}
        return {"class_path": "tts.acoustic.decoder.FlowDecoder", "init_args": {"dit": dit}}

    def heard(decoder: FlowDecoder) -> Tensor:
        told = torch.tensor([[5, -1, 2, 3], [9, 2, 3, -1]])
        return decoder.decode([(torch.ones(8, 100), told)], [told], [torch.zeros(8, 100)], steps=2)[0]

    for old, new in ((0, 7), (7, 9)):
        before, path = decoder(old), tmp_path / f"{old}.safetensors"
        write_part(path, before, config(old), DEFAULT_SYMBOLS)
        after = FlowDecoder(DiT(**config(new)["init_args"]["dit"]["init_args"]))
        load_start(after, path)
        torch.testing.assert_close(heard(after), heard(before))
    with pytest.raises(UserError, match="must not have fewer"):
        load_start(decoder(5), tmp_path / "7.safetensors")


def lm(symbols: int = KNOWN) -> SpeechLM:
    return SpeechLM(**lm_config(symbols)["init_args"])


def batch_of(model: SpeechLM, *texts: Aligned) -> LMBatch:
    examples = [model.layout(t.groups, t.tokens, t.durations) for t in texts]
    ids, labels = zip(*examples, strict=True)
    return LMBatch(
        pad([torch.tensor(one) for one in ids], 0)[0], pad([torch.tensor(one) for one in labels], IGNORE)[0]
    )


@pytest.fixture
def english(tmp_path: Path, fit: Any) -> Path:
    """An LM that has learnt one text, and its file."""
    model = lm()
    fit(LMModule(model, lr=3e-3, warmup=5, total=1000), batch_of(model, ENGLISH), 120)
    path = tmp_path / "base" / "lm.safetensors"
    write_part(path, model, lm_config(), DEFAULT_SYMBOLS)
    return path


def says(model: SpeechLM, text: Aligned) -> Aligned:
    return model.eval().generate([Request(text.groups)], Sampling(temperature=0), Bounds(most_empty=7))[0]


def test_a_second_language_is_learnt_and_the_first_untouched_at_step_0(
    english: Path, fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = lm()
    load_start(old, english)
    table = DEFAULT_SYMBOLS.extended(NEW)
    for name in ("tts.training.start", "tts.training.lm"):
        monkeypatch.setattr(f"{name}.DEFAULT_SYMBOLS", table)
    model = lm(len(table))
    load_start(model, english)
    # the first language: the same logits of everything both know, and the same speech
    a, b = (one.layout(ENGLISH.groups, ENGLISH.tokens, ENGLISH.durations)[0] for one in (old, model))
    with torch.no_grad():
        before, now = old(torch.tensor([a]))[0], model(torch.tensor([b]))[0]
    assert torch.equal(now[:, :KNOWN], before[:, :KNOWN])
    assert torch.equal(now[:, len(table) :], before[:, KNOWN:])
    assert (now.softmax(-1)[:, KNOWN : len(table)] < 1e-3).all()
    assert says(model, ENGLISH).tokens == says(old, ENGLISH).tokens == list(ENGLISH.tokens)

    module = LMModule(model, lr=3e-3, warmup=5, total=1000)
    with torch.no_grad():
        loss = float(model.loss(*batch_of(model, SECOND))[0])
    model.train()
    metrics = fit(module, batch_of(model, ENGLISH, SECOND), 120)
    assert metrics["val/loss"] < 0.1 < loss
    assert says(model, SECOND).tokens == list(SECOND.tokens)
    assert says(model, ENGLISH).tokens == list(ENGLISH.tokens)


def test_a_tokenizer_of_more_symbols_reads_what_the_old_one_read(tmp_path: Path) -> None:
    config = {
        "class_path": "codec.tokenizer.model.Tokenizer",
        "init_args": {
            "quantizer": {
                "class_path": "codec.tokenizer.fsq.FSQ",
                "init_args": {"dim": 16, "levels": [3, 3]},
            },
            "symbols": KNOWN,
            "dim": 16,
            "heads": 2,
            "layers": 1,
            "reader_layers": 1,
            "dropout": 0.0,
        },
    }
    settings = {k: v for k, v in config["init_args"].items() if k not in ("quantizer", "symbols")}  # type: ignore[attr-defined]
    old = Tokenizer(FSQ(16, [3, 3]), symbols=KNOWN, **settings).eval()
    write_part(tmp_path / "tokenizer.safetensors", old, config, DEFAULT_SYMBOLS)
    new = Tokenizer(FSQ(16, [3, 3]), symbols=KNOWN + 2, **settings).eval()
    load_start(new, tmp_path / "tokenizer.safetensors", [*DEFAULT_SYMBOLS.to_list(), *NEW])

    frames = torch.randn(1, 40, 100) - 6
    tokens, _ = old.encode(frames)
    assert torch.equal(new.encode(frames)[0], tokens)
    assert new.read(tokens) == old.read(tokens)
    before, now = old.token_log_probs(tokens).exp(), new.token_log_probs(tokens).exp()
    torch.testing.assert_close(now[..., :KNOWN], before, atol=1e-3, rtol=0)
    assert (now[..., KNOWN:] < 1e-3).all()


def test_adapters_learn_a_text_while_the_weights_stay(english: Path, fit: Any) -> None:
    base, model = lm(), lm()
    load_start(base, english)
    module = LMModule(model, lr=1e-2, warmup=5, total=1000, start=str(english), lora=4)
    text = Aligned([(9,), (10,)], [11, 12, 13], [1, 2])
    fit(module, batch_of(model, text), 150)
    assert says(model, text).tokens == list(text.tokens)
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    originals = {
        name.replace(".parametrizations.weight.original", ".weight"): p for name, p in frozen.items()
    }
    assert set(originals) == set(dict(base.named_parameters()))
    assert all(torch.equal(p, base.get_parameter(name)) for name, p in originals.items())


def test_what_cannot_be_begun_with_is_named(english: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lm\.safetensors: holds a SpeechLM, the config a Linear"):
        load_start(nn.Linear(2, 2), english)
    narrow = lm_config()
    narrow["init_args"]["hidden_size"] = 16
    with pytest.raises(UserError, match=r"of other sizes than the config's.*embed_tokens"):
        load_start(SpeechLM(**narrow["init_args"]), english)
    with pytest.raises(UserError, match="a model of 192 symbols; the config has 20"):
        load_start(lm(20), english)
    with pytest.raises(UserError, match="no beginning of the present one"):
        load_start(lm(), english, ["x", *DEFAULT_SYMBOLS.to_list()[1:]])
    with pytest.raises(UserError, match=r"none\.safetensors: cannot be read"):
        load_start(lm(), tmp_path / "none.safetensors")
