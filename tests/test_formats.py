"""A model folder of every format there was loads and does what it did when it was written, or says what to do.

``data/models/format-N`` was written by the version that made format N, and is never written again. After raising
`FORMAT`, add a folder of the new one, with its ``expected.json`` (``measured`` below says what is in it).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from codec.errors import UserError
from tts.checkpoint import FORMAT, OLDEST, PARTS, Model, write_adapter
from tts.lm.model import Request
from tts.lm.sampling import Sampling

KEPT = Path(__file__).parent / "data" / "models"


@torch.no_grad()
def measured(model: Model) -> dict[str, list[float]]:
    """A few numbers out of every part, for inputs that no random generator makes."""
    wav = torch.sin(torch.arange(6000) ** 1.3 / 40)[None] / 2
    frames = model.features(wav)[:, :80]
    tokens = torch.arange(0, 600, 30)[None]
    groups = model.symbols.groups(model.symbols.encode("həlˈoʊ wˈɜːld."))
    prefix = torch.tensor([model.lm.prefix(Request(groups))])
    written = model.lm.generate([Request(groups)], Sampling(temperature=0))[0]
    noise = torch.sin(torch.arange(80 * frames.shape[2]) ** 1.1).view(80, -1)
    made = model.acoustic.decode([(frames[0], tokens[0])], [tokens[0]], [noise], steps=2)[0]
    found = {
        "features": frames[0, 10, :4],
        "tokenizer": model.tokenizer.token_log_probs(tokens)[0, 7, :4],
        "codes": model.tokenizer.encode(frames)[0][0][:8],
        "lm": model.lm(prefix)[0, -1, 200:204],
        "durations": torch.tensor(written.durations),
        "acoustic": made[40, :4],
        "vocoder": model.vocoder(frames)[0, 1000:1004],
    }
    return {name: [round(float(x), 5) for x in values] for name, values in found.items()}


def of_format(path: Path, folder: Path, **changes: Any) -> None:
    """A copy of a model folder with other metadata; None takes an entry away."""
    shutil.copytree(path, folder)
    for part in PARTS:
        file = folder / f"{part}.safetensors"
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            note = {**json.loads(opened.metadata()["tts"]), **changes}
        note = {key: value for key, value in note.items() if value is not None}
        save_file(tensors, file, metadata={"tts": json.dumps(note)})


def test_a_folder_of_every_format_is_kept() -> None:
    assert {path.name for path in KEPT.iterdir()} == {f"format-{n}" for n in range(OLDEST, FORMAT + 1)}
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) < 600_000


@pytest.mark.parametrize("folder", sorted(KEPT.iterdir()), ids=lambda path: path.name)
def test_every_kept_folder_does_what_it_did(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    # how durations are drawn is no part of a format: a temperature of 0 took the longest then, and takes the median now
    assert expected["durations"] == [12.0] * 9
    expected["durations"] = [2.0] * 9
    found = measured(Model.load(folder))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=2e-3), name


def test_the_first_files_told_nothing_of_tokenizers(tmp_path: Path) -> None:
    of_format(KEPT / "format-1", tmp_path / "first", tokenizer=None, by=None)
    now = Model.load(KEPT / "format-1")
    first = Model.load(tmp_path / "first")
    assert first.tokenizer_id == now.tokenizer_id != ""


def test_formats_that_are_not_read_say_what_to_do(tmp_path: Path) -> None:
    of_format(KEPT / "format-1", tmp_path / "new", format=FORMAT + 1, by="tts 7.0")
    with pytest.raises(
        UserError, match=rf"format {FORMAT + 1}, .* update the program \(it was written by tts 7\.0\)"
    ):
        Model.load(tmp_path / "new")
    of_format(KEPT / "format-1", tmp_path / "old", format=OLDEST - 1, by="tts 0.0.1")
    with pytest.raises(
        UserError, match=r"use the version that wrote it \(tts 0\.0\.1\), or write the model again"
    ):
        Model.load(tmp_path / "old")


def test_adapters_have_a_format_too(tiny_model: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "tuned", tiny_model, {"lm": {}})
    file = tmp_path / "tuned" / "adapter.safetensors"
    Model.load(tmp_path / "tuned")
    with safe_open(file, framework="pt") as opened:
        note = json.loads(opened.metadata()["tts"])
    save_file({}, file, metadata={"tts": json.dumps({**note, "format": FORMAT + 1})})
    with pytest.raises(UserError, match=r"adapter\.safetensors: format .* update the program"):
        Model.load(tmp_path / "tuned")
