"""The exported folder is loaded by transformers' Auto classes as it is, and says what ours says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codec.errors import SpecError, UserError
from tts.checkpoint import EMBEDDED, Model
from tts.export.as_transformers import export_transformers
from tts.export.note import FILE, Note
from tts.export.vocabulary import vocabulary
from tts.lm.model import Request, SpeechLM

transformers = pytest.importorskip("transformers")

PHONEMES = "həˈloʊ wˈɜːld, ðɪs ɪz ɐ tˈɛst."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "lm"
    export_transformers(Model.load(), path)
    return path


def greedy(lm: SpeechLM, ids: list[int], count: int) -> list[int]:
    """The likeliest ids, by the whole sequence every time: no cache to go wrong."""
    for _ in range(count):
        ids = [*ids, int(lm(torch.tensor([ids]))[0, -1].argmax())]
    return ids


@torch.no_grad()
def test_auto_classes_give_the_same_greedy_tokens(folder: Path) -> None:
    model = Model.load()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    groups = model.symbols.groups(model.symbols.encode(PHONEMES))
    prefix = model.lm.prefix(Request(groups))
    written = tokenizer.decode(prefix)
    assert written.startswith("<bos>həˈloʊ") and tokenizer(written).input_ids == prefix
    ids = torch.tensor([prefix])
    torch.testing.assert_close(theirs(ids).logits, model.lm(ids), atol=2e-4, rtol=2e-4)
    made = theirs.generate(ids, max_new_tokens=60, do_sample=False)[0].tolist()
    assert made == greedy(model.lm, prefix, len(made) - len(prefix))
    codes = [i for i in made[len(prefix) :] if i >= model.lm.layout.first_code]
    assert len(codes) > 20 and len(set(codes)) > 10  # it speaks
    assert tokenizer(tokenizer.decode(made)).input_ids == made


def test_generation_ends_where_ours_does(folder: Path) -> None:
    layout = Model.load().lm.layout
    config = transformers.AutoConfig.from_pretrained(folder)
    generation = transformers.GenerationConfig.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert config.vocab_size == layout.vocab_size == len(tokenizer)
    assert generation.eos_token_id == tokenizer.eos_token_id == layout.eos
    assert tokenizer.bos_token_id == layout.bos and tokenizer.pad_token_id == 0
    assert tokenizer("h").input_ids == tokenizer("h", add_special_tokens=False).input_ids


def test_tokenizer_reads_as_the_table_does(folder: Path) -> None:
    symbols = Model.load().symbols
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in (PHONEMES, "ãgçɧ çə̃", "ʧʤ“x” — ok…", "ẽ́ ɪ̯t͡s\tɐ", "漢 a_b-c ﬀ"):
        assert tokenizer(text).input_ids == symbols.encode(text), text
        assert tokenizer.decode(symbols.encode(text)) == symbols.decode(symbols.encode(text))
    strings = vocabulary(symbols, Model.load().lm.layout)
    assert [tokenizer.convert_tokens_to_ids(s) for s in strings] == list(range(len(strings)))
    assert tokenizer("<s0><s12><s624>").input_ids == [strings.index(s) for s in ("<s0>", "<s12>", "<s624>")]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_precisions(tiny_model: Path, tmp_path: Path, dtype: str) -> None:
    model = Model.load(tiny_model)
    export_transformers(model, tmp_path, dtype=dtype)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == getattr(torch, dtype)
    for name, weight in theirs.state_dict().items():
        mine = model.lm.llama.state_dict()[name]
        assert torch.equal(weight, mine.to(weight.dtype)), name


def test_an_export_knows_what_it_is_of(folder: Path, tiny_model: Path) -> None:
    note = Note.read((folder / FILE).read_text(), "here")
    note.require(Model.load(EMBEDDED), "here")
    with pytest.raises(SpecError, match=r"here and .* do not fit together: .*export it again"):
        note.require(Model.load(tiny_model), "here")
    for text in (None, "", "{}", "[]"):
        with pytest.raises(UserError, match="here: no export of this project"):
            Note.read(text, "here")
