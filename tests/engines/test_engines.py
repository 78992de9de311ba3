"""Every engine writes what torch writes, alone, in a batch of unequal rows, in a stream; others' files are refused."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from codec.errors import SpecError, UserError
from tts import TTS
from tts.checkpoint import EMBEDDED, Model
from tts.engines import EngineLM, with_engine
from tts.engines.choose import engine_of
from tts.engines.engine import padded
from tts.lm.model import Request
from tts.lm.sampling import Sampling
from tts.streaming import Chunk

ENGINES = ("transformers", "transformers:", "onnxruntime:", "llama.cpp:", "server")


def llama_cpp_loads() -> bool:
    try:
        import llama_cpp  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return False
    return True


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of the tiny model by engine, made when they are asked for."""
    folder, model = tmp_path_factory.mktemp("exported"), Model.load(tiny_model)

    class Made(dict[str, Path]):
        def __missing__(self, kind: str) -> Path:
            path = folder / kind
            if kind == "transformers:":
                from tts.export.as_transformers import export_transformers

                export_transformers(model, path)
            elif kind == "onnxruntime:":
                from tts.export.as_onnx import export_onnx

                export_onnx(model, path, only=["lm_step"])
            else:
                from tts.export.as_gguf import export_gguf

                path = export_gguf(model, folder / "lm.gguf", kind="f32")
            self[kind] = path
            return path

    return Made()


@pytest.fixture
def word(request: pytest.FixtureRequest, exported: dict[str, Path], server: Any) -> str:
    """The word for an engine, with its file; skips where its library is not installed."""
    kind = request.param
    needed = {
        "transformers": ["transformers"],
        "onnxruntime": ["onnxruntime", "onnx", "onnxscript"],
        "llama.cpp": ["gguf"],
    }
    for name in needed.get(kind.partition(":")[0], []):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    if kind == "llama.cpp:" and not llama_cpp_loads():
        pytest.skip("llama-cpp-python is not installed: it has to be compiled, for minutes")
    if kind == "server":
        return str(server.url)
    return kind + str(exported[kind]) if kind.endswith(":") else str(kind)


def requests_of(model: Model) -> list[Request]:
    texts = ("həlˈoʊ wˈɜːld.", "ɐ", "ðɪs ɪz ɐ lˈɑːŋɡɚ wˈʌn, wˈɪʃ ˈɛndz lˈeɪɾɚ.")
    return [Request(model.symbols.groups(model.symbols.encode(text)), seed=n) for n, text in enumerate(texts)]


@pytest.mark.parametrize("word", ENGINES, indirect=True)
def test_an_engine_writes_what_torch_writes(word: str, tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    lm = with_engine(model, word).lm
    assert isinstance(lm, EngineLM)
    requests = requests_of(model)
    if word.startswith("http"):
        requests = requests[:2]
    for sampling in (Sampling(temperature=0), Sampling()):
        wanted = model.lm.generate(requests, sampling)
        assert sum(len(one.tokens) for one in wanted) > 20
        assert lm.generate(requests, sampling) == wanted
    assert lm.generate(requests[:1], Sampling()) == wanted[:1]  # alone as in the batch


@pytest.mark.parametrize("word", ENGINES, indirect=True)
def test_logits_are_torchs_but_for_a_constant(word: str, tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    engine = engine_of(word, model)
    assert engine is not None
    session = engine.start(2, 20)
    rows = [[1, 5, 9, 200, 300], [7, 3]]
    first = session.step(rows)
    second = session.step([[11, 12], []])
    with torch.no_grad():
        wanted = [model.lm(torch.tensor([row]))[0, -1] for row in (*rows, [*rows[0], 11, 12])]
    for found, mine in zip((first[0], first[1], second[0]), wanted, strict=True):
        torch.testing.assert_close(found.log_softmax(-1), mine.log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_read_back_batches_and_streams_with_an_engine(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    mine, theirs = TTS.load(tiny_model), TTS.load(tiny_model, engine="transformers")
    voice = mine.voice(EMBEDDED / "prompt.flac")
    settings: dict[str, Any] = {"steps": 1, "guidance": 0.0, "chunk": 12, "candidates": 2}
    wanted = mine.synthesize(["Ten. Nine eight seven.", "Two"], voice, **settings)
    found = theirs.synthesize(["Ten. Nine eight seven.", "Two"], voice, **settings)
    for a, b in zip(wanted, found, strict=True):
        assert torch.equal(a.wav, b.wav)
        assert a.quality == b.quality and len(a.quality) == len(a.sentences)
    chunks: list[Chunk] = list(theirs.stream("Ten. Nine eight seven.", voice, steps=1, guidance=0.0))
    streamed = list(mine.stream("Ten. Nine eight seven.", voice, steps=1, guidance=0.0))
    assert torch.equal(torch.cat([c.wav for c in chunks]), torch.cat([c.wav for c in streamed]))
    assert chunks[-1].done is not None and len(chunks) > 2


def test_padding_is_on_the_left() -> None:
    ids, pads = padded([[1, 2, 3], [4]])
    assert ids.tolist() == [[1, 2, 3], [0, 0, 4]] and pads.tolist() == [0, 2]


# ------------------------------------------------------------------------------------------------- the server


def test_a_batch_is_one_request_and_text_will_do_for_ids(server: Any, tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    server.keys = "text"
    request = requests_of(model)[1]
    written = with_engine(model, server.url).lm.generate([request, request], Sampling(temperature=0))
    assert written == model.lm.generate([request, request], Sampling(temperature=0))
    first = server.questions[0]
    assert first["prompt"] == [model.lm.prefix(request)] * 2
    assert (first["model"], first["max_tokens"], first["add_special_tokens"]) == ("tiny", 1, False)
    assert len(server.questions[-1]["prompt"][0]) == len(first["prompt"][0]) + len(server.questions) - 1


def test_a_server_that_tells_too_little(server: Any, tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    lm = with_engine(model, server.url).lm
    server.most = 20
    with pytest.raises(UserError, match=r"answered 400: .*max allowed: 20.* --max-logprobs 820"):
        lm.generate(requests_of(model)[1:2])
    server.refuse = False
    with pytest.raises(UserError, match=r"tells 20 log probabilities of 820, .* --max-logprobs 820"):
        lm.generate(requests_of(model)[1:2])


def test_servers_that_are_none(server: Any, tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    with pytest.raises(UserError, match=r"cannot be reached .*is the server running"):
        engine_of("http://127.0.0.1:9/v1", model)
    with pytest.raises(UserError, match="is no OpenAI-style server"):
        engine_of(server.url.removesuffix("/v1"), model)


# --------------------------------------------------------------------------------------------- what is not right


def test_words_that_name_no_engine(tiny_model: Path, tmp_path: Path) -> None:
    model = Model.load(tiny_model)
    assert with_engine(model, "torch") is model
    for word, told in (
        ("tensorflow", "no engine 'tensorflow'; give torch, compiled, transformers"),
        ("torch:x", "no engine 'torch:x'"),
        ("onnxruntime", r"lacks its file: onnxruntime:PLACE, .* --to onnx"),
        ("llama.cpp:", r"lacks its file: llama\.cpp:PLACE, .* --to gguf"),
    ):
        with pytest.raises(UserError, match=told):
            with_engine(model, word)
    with pytest.raises(UserError, match="no engine"):
        TTS.load(tiny_model, engine="x")


def test_an_export_of_another_model_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(SpecError, match="do not fit together"):
        TTS.load(engine=f"transformers:{exported['transformers:']}")
    with pytest.raises(UserError, match="no export of this project"):
        TTS.load(engine=f"transformers:{tmp_path}")


@pytest.mark.skipif(
    not llama_cpp_loads() or find_spec("gguf") is None, reason="llama-cpp-python is not installed"
)
def test_llama_cpp_reads_the_written_form(
    exported: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    import llama_cpp

    model = Model.load(tiny_model)
    theirs = llama_cpp.Llama(str(exported["llama.cpp:"]), vocab_only=True, verbose=False)
    text = "<bos>həlˈoʊ<text_end>hə<s12>l<s0><s624><eos>"
    ids = theirs.tokenize(text.encode(), add_bos=False, special=True)
    symbols, layout = model.symbols, model.lm.layout
    code = layout.first_code
    assert ids == [
        *[layout.bos, *symbols.encode("həlˈoʊ"), layout.text_end, *symbols.encode("hə"), code + 12],
        *[*symbols.encode("l"), code, code + 624, layout.eos],
    ]
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"llama\.cpp cannot load it"):
        engine_of(f"llama.cpp:{tmp_path / 'bad.gguf'}", model)
