"""Model folders: what is written is read back, within the storage's precision; what does not fit is named."""

from __future__ import annotations

import copy
import json
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from codec.errors import SpecError, UserError
from codec.features.mel import LogMel
from codec.spec import FrameSpec, TokenSpec
from codec.tokenizer.model import Tokenizer
from codec.vocoders.vocos import VocosVocoder
from tts import checkpoint
from tts.acoustic.decoder import FlowDecoder
from tts.checkpoint import FORMAT, PARTS, Model, build, read_part, voices, write_part
from tts.lm.model import SpeechLM
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable

Configs = dict[str, dict[str, Any]]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def rewrite(folder: Path, part: str, config: dict[str, Any], symbols: SymbolTable = DEFAULT_SYMBOLS) -> None:
    write_part(folder / f"{part}.safetensors", build(config), config, symbols)


def note_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        note: dict[str, Any] = json.loads(file.metadata()["tts"])
    return note


def tamper(path: Path, **changes: Any) -> None:
    """Write a part again with other metadata; None takes an entry away."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    note = {k: v for k, v in {**note_of(path), **changes}.items() if v is not None}
    save_file(tensors, path, metadata={"tts": json.dumps(note)})


# ------------------------------------------------------------------------------------------------ round trips


def test_loads_all_parts_in_evaluation_mode(tiny_model: Path) -> None:
    model = Model.load(tiny_model)
    kinds = (LogMel, Tokenizer, SpeechLM, FlowDecoder, VocosVocoder)
    assert [type(getattr(model, part)) for part in PARTS] == list(kinds)
    assert model.spec == TokenSpec() and model.symbols == DEFAULT_SYMBOLS and model.folder == tiny_model
    for part in PARTS:
        module = getattr(model, part)
        assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert model.voices() == {}


def test_float32_is_exact_and_names_its_part(tmp_path: Path, tiny_configs: Configs) -> None:
    module, path = build(tiny_configs["tokenizer"]), tmp_path / "new" / "tokenizer.safetensors"
    write_part(path, module, tiny_configs["tokenizer"], DEFAULT_SYMBOLS)
    again, note = read_part(path)
    assert type(again) is Tokenizer
    state = module.state_dict()
    assert again.state_dict().keys() == state.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, state[name]) and tensor.dtype == state[name].dtype, name
    assert note["format"] == FORMAT and note["storage"] == "float32"
    assert note["config"] == tiny_configs["tokenizer"] and note["symbols"] == DEFAULT_SYMBOLS.to_list()
    assert TokenSpec.from_dict(note["spec"]) == TokenSpec()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    (path.parent / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "plain").stat().st_mode)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_stored_precision(tmp_path: Path, tiny_configs: Configs, storage: str) -> None:
    module, path = build(tiny_configs["lm"]), tmp_path / "lm.safetensors"
    with torch.no_grad():
        for parameter in module.parameters():
            if (
                parameter.ndim == 2
            ):  # rows of very different size, one of zeros, one whose scale is its largest
                parameter.mul_(torch.logspace(-3, 2, len(parameter))[:, None])
                parameter[0] = 0
                parameter[1, 0] = 127.0
    write_part(path, module, tiny_configs["lm"], DEFAULT_SYMBOLS, storage=storage)
    read, packed = read_part(path)[0].state_dict(), 0
    for name, tensor in module.state_dict().items():
        assert read[name].dtype == torch.float32 and read[name].shape == tensor.shape
        error = (read[name] - tensor).abs()
        if tensor.ndim < 2 or tensor.numel() < checkpoint.SMALL:
            assert not error.any(), name
            continue
        packed += 1
        if storage == "float16":  # 11 bits of mantissa, and the smallest step of numbers near 0
            assert (error <= tensor.abs() * 2.0**-11 + 2.0**-25).all(), name
        else:  # half a step of the row's largest number / 127
            rows = tensor.flatten(1)
            bound = rows.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127 / 2
            assert (error.flatten(1) <= bound * 1.0001).all(), name
            assert not read[name].flatten(1)[rows.abs().amax(1) == 0].any(), name
    assert packed >= 2
    plain = tmp_path / "plain.safetensors"
    write_part(plain, module, tiny_configs["lm"], DEFAULT_SYMBOLS)
    large = sum(
        t.numel() for t in module.state_dict().values() if t.ndim > 1 and t.numel() >= checkpoint.SMALL
    )
    saved = plain.stat().st_size - path.stat().st_size
    assert saved > 0.85 * large * (2 if storage == "float16" else 3)  # the rest is scales


def test_int8_keeps_whole_numbers_of_steps(tmp_path: Path, tiny_configs: Configs) -> None:
    module, path = build(tiny_configs["lm"]), tmp_path / "lm.safetensors"
    weight = module.get_parameter("llama.lm_head.weight")
    with torch.no_grad():
        weight.copy_(torch.randint(-126, 127, weight.shape) * 0.25)
        weight[:, 0] = -127 * 0.25
    write_part(path, module, tiny_configs["lm"], DEFAULT_SYMBOLS, storage="int8")
    read = read_part(path)[0].get_parameter("llama.lm_head.weight")
    torch.testing.assert_close(read, weight.detach(), rtol=1e-6, atol=1e-6)


def test_files_of_first_weights_are_not_kept(tmp_path: Path) -> None:
    # the model's own file has them all; the one they came from is not there where the model goes
    kept: dict[str, Any] = {"class_path": "codec.vocoders.encodec.EncodecVocoder", "init_args": {}}
    config = {**kept, "init_args": {"weights": "/gone/encodec.th"}}
    write_part(tmp_path / "vocoder.safetensors", build(kept), config, DEFAULT_SYMBOLS)
    assert note_of(tmp_path / "vocoder.safetensors")["config"] == kept
    assert config["init_args"] == {"weights": "/gone/encodec.th"}


def test_a_write_that_fails_leaves_what_was_there(
    folder: Path, tiny_configs: Configs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "lm.safetensors"
    before, files = path.read_bytes(), sorted(folder.iterdir())

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"lm\.safetensors.*No space left"):
        rewrite(folder, "lm", tiny_configs["lm"])
    assert path.read_bytes() == before
    assert sorted(folder.iterdir()) == files  # and nothing half-written


def test_embedded_model_is_read_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EMBEDDED", tiny_model)
    checkpoint._embedded.cache_clear()
    try:
        assert Model.load() is Model.load(None, "cpu")
        assert Model.load().folder == tiny_model
    finally:
        checkpoint._embedded.cache_clear()


def test_voices_by_name(folder: Path) -> None:
    (folder / "voices").mkdir()
    for name in ("zoe.safetensors", "anna.safetensors", "notes.txt"):
        (folder / "voices" / name).touch()
    assert list(voices(folder)) == ["anna", "zoe"]
    assert Model.load(folder).voices() == voices(folder)
    with pytest.raises(UserError, match="gone: no such model folder"):
        voices(folder / "gone")


# --------------------------------------------------------------------------------------------- broken folders


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"nothing: no such model folder; give a folder that `train.py all` wrote"
    ):
        Model.load(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: no such model folder"):
        Model.load(tmp_path / "file")


def test_missing_parts_are_all_named(folder: Path) -> None:
    (folder / "lm.safetensors").unlink()
    (folder / "vocoder.safetensors").unlink()
    with pytest.raises(UserError, match="not a whole model, lm, vocoder missing"):
        Model.load(folder)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_truncated_file(folder: Path, keep: int) -> None:
    path = folder / "lm.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"lm\.safetensors: cannot be read as safetensors"):
        Model.load(folder)


def test_foreign_safetensors(folder: Path) -> None:
    save_file({"weight": torch.zeros(3)}, folder / "lm.safetensors")
    with pytest.raises(UserError, match=r"lm\.safetensors: safetensors, but not a part of a model"):
        Model.load(folder)


def test_newer_format(folder: Path) -> None:
    tamper(folder / "lm.safetensors", format=FORMAT + 1)
    with pytest.raises(UserError, match=rf"format {FORMAT + 1}, this version reads up to {FORMAT}; update"):
        Model.load(folder)


@pytest.mark.parametrize("changes", [{"format": "one"}, {"config": None}, {"config": []}, {"symbols": None}])
def test_broken_metadata(folder: Path, changes: dict[str, Any]) -> None:
    tamper(folder / "lm.safetensors", **changes)
    with pytest.raises(UserError, match=r"lm\.safetensors: its metadata is broken"):
        Model.load(folder)


def test_metadata_that_is_no_json(folder: Path) -> None:
    save_file({"a": torch.zeros(1)}, folder / "lm.safetensors", metadata={"tts": "{"})
    with pytest.raises(UserError, match=r"lm\.safetensors: its metadata is broken"):
        Model.load(folder)


def test_broken_phoneme_table(folder: Path) -> None:
    tamper(folder / "tokenizer.safetensors", symbols=["a", "b"])
    with pytest.raises(UserError, match=r"tokenizer\.safetensors: symbols\[0\] must be"):
        Model.load(folder)


def test_weights_of_another_size(folder: Path, tiny_configs: Configs) -> None:
    config = copy.deepcopy(tiny_configs["lm"])
    config["init_args"]["hidden_size"] = 48
    tamper(folder / "lm.safetensors", config=config)
    with pytest.raises(
        UserError, match=r"lm\.safetensors: does not hold what its config says: .*size mismatch"
    ):
        Model.load(folder)


def test_missing_weights(folder: Path) -> None:
    path = folder / "vocoder.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != "head.out.bias"}  # noqa: SIM118
        metadata = file.metadata()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(
        UserError, match=r'does not hold what its config says: .*Missing key.*"head\.out\.bias"'
    ):
        Model.load(folder)


# ----------------------------------------------------------------------------------------------- foreign code


@pytest.mark.parametrize(
    "config",
    [
        {"class_path": "os.system"},
        {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
        {"class_path": "codecs.open"},
        {"class_path": None},
        {
            "class_path": "tts.acoustic.decoder.FlowDecoder",
            "init_args": {"dit": {"class_path": "wave.Wave_read", "init_args": {"f": "x"}}},
        },
    ],
)
def test_config_that_names_a_foreign_class(folder: Path, config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config names .*, which is not a class of this project"):
        build(config)
    tamper(folder / "vocoder.safetensors", config=config)
    with pytest.raises(UserError, match=r"which is not a class of this project|config holds"):
        Model.load(folder)


@pytest.mark.parametrize("text", ["evil_module.Class", "evil/settings.yaml", "..\\settings"])
def test_config_that_would_import_or_read_something(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"class_path": "tts.acoustic.decoder.FlowDecoder", "init_args": {"dit": text}}
    tamper(folder / "acoustic.safetensors", config=config)
    with pytest.raises(UserError, match=r"acoustic\.safetensors: its config holds .* for dit"):
        Model.load(folder)
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "config of None cannot be built"),
        ({"class_path": "tts.nowhere.Thing"}, "config of tts.nowhere.Thing cannot be built: No module named"),
        ({"class_path": "tts.lm.model.Thing"}, "has no attribute 'Thing'"),
        ({"class_path": "codec.spec.FrameSpec"}, "does not correspond to a subclass of Module"),
        ({"class_path": "tts.lm.model.SpeechLM", "init_args": {"symbols": "x"}}, "Expected a <class 'int'>"),
        ({"class_path": "tts.lm.model.SpeechLM", "init_args": {"symbols": 9, "size": 3}}, "size"),
        (
            {
                "class_path": "tts.acoustic.decoder.FlowDecoder",
                "init_args": {"dit": {"class_path": "tts.acoustic.dit.DiT", "init_args": {"patch": 3}}},
            },
            "patch 3 does not divide the 4 frames of a token",
        ),
    ],
)
def test_config_that_cannot_be_built(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        build(config)
    assert words in str(error.value) and "\n" not in str(error.value)


# -------------------------------------------------------------------------------------- parts that do not fit


@pytest.mark.parametrize("part", ["features", "vocoder"])
def test_frames_that_do_not_fit(folder: Path, tiny_configs: Configs, part: str) -> None:
    spec = FrameSpec(hop=320)
    config = copy.deepcopy(tiny_configs[part])
    config.setdefault("init_args", {})["spec"] = {"hop": 320}
    rewrite(folder, part, config)
    with pytest.raises(SpecError) as error:
        Model.load(folder)
    assert str(spec) in str(error.value) and str(FrameSpec()) in str(error.value)
    assert f"{part}.safetensors and the tokenizer do not fit together" in str(error.value)


def test_acoustic_decoder_of_other_tokens(folder: Path, tiny_configs: Configs) -> None:
    config = copy.deepcopy(tiny_configs["acoustic"])
    config["init_args"]["dit"]["init_args"]["spec"] = {"codes": 64}
    rewrite(folder, "acoustic", config)
    with pytest.raises(SpecError) as error:
        Model.load(folder)
    assert str(TokenSpec(codes=64)) in str(error.value) and str(TokenSpec()) in str(error.value)
    assert "acoustic.safetensors and the tokenizer do not fit together" in str(error.value)


def test_lm_of_other_tokens(folder: Path, tiny_configs: Configs) -> None:
    config = copy.deepcopy(tiny_configs["lm"])
    config["init_args"]["codes"] = 64
    rewrite(folder, "lm", config)
    with pytest.raises(SpecError, match=r"lm\.safetensors and the tokenizer .* 64 different tokens") as error:
        Model.load(folder)
    assert str(TokenSpec()) in str(error.value)


def test_lm_of_other_phonemes(folder: Path, tiny_configs: Configs) -> None:
    rewrite(folder, "lm", tiny_configs["lm"], DEFAULT_SYMBOLS.extended(["ʕ", "⁂"]))
    with pytest.raises(SpecError, match=r"lm\.safetensors and the tokenizer .*phoneme tables differ"):
        Model.load(folder)


@pytest.mark.parametrize("part", PARTS)
def test_part_in_the_place_of_another(folder: Path, part: str) -> None:
    other = "lm" if part != "lm" else "features"
    shutil.copy(folder / f"{other}.safetensors", folder / f"{part}.safetensors")
    with pytest.raises(
        UserError, match=rf"{part}\.safetensors: holds a (SpeechLM|LogMel), (not a|nothing of) "
    ):
        Model.load(folder)


def test_features_are_no_vocoder(folder: Path) -> None:
    # both have the same FrameSpec: only what they are tells them apart
    shutil.copy(folder / "features.safetensors", folder / "vocoder.safetensors")
    with pytest.raises(UserError, match=r"vocoder\.safetensors: holds a LogMel, nothing of codec\.vocoders"):
        Model.load(folder)


def test_an_lm_trained_on_another_tokenizer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Equal grids do not mean equal tokens: the fingerprints noted in the files tell them apart."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    module, note = read_part(folder / "tokenizer.safetensors")
    with torch.no_grad():
        next(module.parameters()).add_(0.01)
    write_part(folder / "tokenizer.safetensors", module, note["config"], DEFAULT_SYMBOLS)
    with pytest.raises(SpecError, match=r"lm\.safetensors and the tokenizer do not fit together"):
        Model.load(folder)
