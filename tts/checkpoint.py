"""Model folders: written from training runs, read for inference.

    <folder>/<part>.safetensors   one file each for features, tokenizer, lm, acoustic, vocoder; its metadata
                                  holds the part's config (class_path and init_args, as in the YAML) and the
                                  grid it fits
    <folder>/voices/*.safetensors voices that come with the model
    <folder>/README.md            the model card

or, of a model tuned with adapters, a small file beside the base that it changes:

    <folder>/adapter.safetensors  the adapters of lm and acoustic; its metadata says of which base

Nothing here is a pickle, and a config can only name classes of this project.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from jsonargparse import ArgumentParser
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from codec.audio import write_whole
from codec.errors import SpecError, UserError
from codec.nn.lora import merge_state
from codec.nn.packed import packed
from codec.spec import FrameSpec, TokenSpec, require_same
from codec.tokenizer.model import Tokenizer
from tts.acoustic.decoder import FlowDecoder
from tts.lm.model import SpeechLM
from tts.text.symbols import SymbolTable

FORMAT = 3
OLDEST = 1
"""The formats that are read, both included. Whoever raises `FORMAT` adds a folder to ``tests/data/models``.

2: the speaker encoder of the acoustic decoder normalises what it pools.
3: the acoustic decoder leads the noisy frames past its blocks.
"""
PARTS = ("features", "tokenizer", "lm", "acoustic", "vocoder")
OURS = ("codec.", "tts.")
HOMES = {"features": "codec.features.", "vocoder": "codec.vocoders."}  # parts that share no base class
EMBEDDED = Path(__file__).parent / "pretrained"
EMBEDDED_NAME = "embedded"
ADAPTER = "adapter.safetensors"
SMALL = 4096  # tensors with fewer numbers are stored as they are

M = TypeVar("M", bound=nn.Module)
Config = Mapping[str, Any]
Storage = str
"""How matrices are stored: "float32", "float16", or "int8" with one scale a row."""


@dataclass(frozen=True)
class Model:
    """The parts of the chain, on one grid and one phoneme table.

    Attributes:
        features: waveform (B, samples) -> frames.
        tokenizer, lm, acoustic: the three models.
        vocoder: frames -> waveform (B, samples).
        symbols: the phoneme table.
        spec: the grid that all parts share.
        folder: where it was read from.
        tokenizer_id: which trained tokenizer the tokens are of, see `fingerprint`.
    """

    features: nn.Module
    tokenizer: Tokenizer
    lm: SpeechLM
    acoustic: FlowDecoder
    vocoder: nn.Module
    symbols: SymbolTable
    spec: TokenSpec
    folder: Path
    tokenizer_id: str = ""

    @classmethod
    def load(cls, folder: str | Path | None = None, device: str | torch.device = "cpu") -> "Model":
        """Read a model folder; None is the embedded model, read once per device.

        Raises:
            UserError: no such folder, a part missing or broken, or parts that do not fit together.
        """
        return _embedded(str(device)) if folder is None else _load(Path(folder), device)

    def voices(self) -> dict[str, Path]:
        """The saved voices that come with the model, by name."""
        return voices(self.folder)


def voices(folder: Path) -> dict[str, Path]:
    """The saved voices of a model folder, by name; without loading the model.

    Raises:
        UserError: no such folder.
    """
    _require_folder(folder)
    of_base = voices(base_of(folder)) if (folder / ADAPTER).is_file() else {}
    return of_base | {path.stem: path for path in sorted((folder / "voices").glob("*.safetensors"))}


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; give a folder that `train.py all` wrote")


@lru_cache(maxsize=2)
def _embedded(device: str) -> Model:
    return _load(EMBEDDED, device)


def _load(folder: Path, device: str | torch.device) -> Model:
    _require_folder(folder)
    if (folder / ADAPTER).is_file():
        return _load_adapted(folder, device)
    missing = [part for part in PARTS if not (folder / f"{part}.safetensors").is_file()]
    if missing:
        raise UserError(f"{folder}: not a whole model, {', '.join(missing)} missing; finish its training")
    read = {part: read_part(folder / f"{part}.safetensors", device) for part in PARTS}
    symbols = SymbolTable.from_list(read["tokenizer"][1]["symbols"])
    modules = {part: module for part, (module, _) in read.items()}
    for part, home in HOMES.items():
        if not f"{type(modules[part]).__module__}.".startswith(home):
            raise UserError(
                f"{folder / part}.safetensors: holds a {type(modules[part]).__name__}, nothing of {home[:-1]}"
            )
    for module in modules.values():
        packed(module)
    model = Model(
        modules["features"],
        _expect(modules["tokenizer"], Tokenizer, folder / "tokenizer.safetensors"),
        _expect(modules["lm"], SpeechLM, folder / "lm.safetensors"),
        _expect(modules["acoustic"], FlowDecoder, folder / "acoustic.safetensors"),
        modules["vocoder"],
        symbols,
        cast(Tokenizer, modules["tokenizer"]).spec,
        folder,
        read["tokenizer"][1]["tokenizer"] or fingerprint(cast(Tokenizer, modules["tokenizer"])),
    )
    check_fit(model, read["lm"][1]["symbols"])
    for part in ("lm", "acoustic"):
        if read[part][1]["tokenizer"] not in ("", model.tokenizer_id):
            raise SpecError(
                f"{folder / part}.safetensors and the tokenizer do not fit together: it was trained on the tokens of "
                f"tokenizer {read[part][1]['tokenizer']}, this one is {model.tokenizer_id}"
            )
    return model


def write_adapter(folder: Path, base: Path, adapters: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Save what adapters have learnt as a model folder of its own, whole or not at all.

    Args:
        folder: to write to.
        base: the model folder that they were trained on; it is referred to, not copied.
        adapters: a `codec.nn.lora.lora_state` by part.
    """
    note = {
        "format": FORMAT,
        "by": _program(),
        "base": EMBEDDED_NAME if base == EMBEDDED else str(base.resolve()),
        "parts": {part: _digest(base / f"{part}.safetensors") for part in adapters},
    }
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().half().contiguous()
        for part, state in adapters.items()
        for name, tensor in state.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ADAPTER, save(tensors, metadata={"tts": json.dumps(note)}))


def base_of(folder: Path) -> Path:
    """The base that a folder with an adapter changes.

    Raises:
        UserError: the file is broken, or the base is not there.
    """
    note, _ = _read_adapter(folder / ADAPTER)
    base = EMBEDDED if note["base"] == EMBEDDED_NAME else Path(note["base"])
    if not base.is_dir():
        raise UserError(f"{folder / ADAPTER}: its base model {base} is not there; put it back, or tune anew")
    return base


def _read_adapter(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            note = json.loads((file.metadata() or {})["tts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _require_format(path, note)
        if isinstance(note["base"], str) and set(note["parts"]) <= {"lm", "acoustic"}:
            return note, tensors
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as an adapter ({error})") from error
    raise UserError(f"{path}: not an adapter of this project")


def _load_adapted(folder: Path, device: str | torch.device) -> Model:
    note, tensors = _read_adapter(folder / ADAPTER)
    base = base_of(folder)
    model = _load(base, device)  # its own copy: the adapters are added to the weights
    for part, digest in note["parts"].items():
        if _digest(base / f"{part}.safetensors") != digest:
            raise SpecError(
                f"{folder / ADAPTER} and {base / part}.safetensors do not fit together: the adapter was trained on "
                "another version of that file; put that one back, or tune anew"
            )
        state = {
            k.removeprefix(f"{part}."): v.to(device) for k, v in tensors.items() if k.startswith(f"{part}.")
        }
        try:
            merge_state(getattr(model, part), state)
        except ValueError as error:
            raise UserError(f"{folder / ADAPTER}: {error}") from error
    return replace(model, folder=folder)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _expect(module: nn.Module, kind: type[M], path: Path) -> M:
    if not isinstance(module, kind):
        raise UserError(f"{path}: holds a {type(module).__name__}, not a {kind.__name__}")
    return module


def check_fit(model: Model, lm_symbols: list[str]) -> None:
    """Raise `SpecError`, naming both sides, where two parts do not share one grid or phoneme table."""
    frames = model.spec.frames
    for part in ("features", "vocoder"):
        spec = cast(FrameSpec, getattr(model, part).spec)
        require_same(spec, frames, a_name=f"{model.folder / part}.safetensors", b_name="the tokenizer")
    require_same(
        model.acoustic.spec,
        model.spec,
        a_name=f"{model.folder / 'acoustic'}.safetensors",
        b_name="the tokenizer",
    )
    if model.lm.layout.codes != model.spec.codes:
        raise SpecError(
            f"{model.folder / 'lm'}.safetensors and the tokenizer do not fit together: the LM writes "
            f"{model.lm.layout.codes} different tokens, the tokenizer has {model.spec}"
        )
    if lm_symbols != model.symbols.to_list():
        raise SpecError(
            f"{model.folder / 'lm'}.safetensors and the tokenizer do not fit together: their phoneme "
            f"tables differ ({len(lm_symbols)} and {len(model.symbols)} symbols)"
        )


def build(config: Config) -> nn.Module:
    """The module that a config names, with fresh weights.

    Raises:
        UserError: the config names a class outside this project, or arguments the class does not take.
    """
    for key, value in _settings(config):
        if key == "class_path" and not str(value).startswith(OURS):
            raise UserError(f"config names {value!r}, which is not a class of this project")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "part")
    try:
        importlib.import_module(str(config["class_path"]).rpartition(".")[0])
        parsed = parser.parse_object({"part": dict(config)})
        return cast(nn.Module, parser.instantiate(parsed)["part"])
    except Exception as error:
        line = " ".join(str(error).split()).rpartition("Errors: - ")[2]
        raise UserError(f"config of {config.get('class_path')} cannot be built: {line[:300]}") from error


def _settings(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All (name, value) of a config that hold no others; what stands in a list has the list's name."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _settings(value, name)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _settings(value, key)
    else:
        yield key, config


def _without_weights(config: Any) -> Any:
    """A config without the files that first weights came from: the model's own file has the last ones."""
    if isinstance(config, Mapping):
        return {name: _without_weights(value) for name, value in config.items() if name != "weights"}
    return [_without_weights(value) for value in config] if isinstance(config, list | tuple) else config


def write_part(
    path: Path, module: nn.Module, config: Config, symbols: SymbolTable, *, storage: Storage = "float32"
) -> None:
    """Save one part of a model, whole or not at all.

    It notes which tokenizer's tokens it is made for: the one that lies in the folder already.
    """
    spec = module.spec if hasattr(module, "spec") else None
    note = {
        "format": FORMAT,
        "by": _program(),
        "tokenizer": fingerprint(module) if isinstance(module, Tokenizer) else _made_for(path),
        "config": _without_weights(config),
        "spec": asdict(cast(Any, spec)) if spec is not None else None,
        "symbols": symbols.to_list(),
        "storage": storage,
    }
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        tensors |= _pack(name, tensor.detach().cpu(), storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(tensors, metadata={"tts": json.dumps(note, ensure_ascii=False)}))


def fingerprint(tokenizer: Tokenizer) -> str:
    """What tells one trained tokenizer from another: two on the same grid give different tokens all the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _made_for(path: Path) -> str:
    """The fingerprint that the tokenizer beside a part carries, "" where there is none yet."""
    tokenizer = path.with_name("tokenizer.safetensors")
    if not tokenizer.is_file():
        return ""
    with safe_open(tokenizer, framework="pt", device="cpu") as file:
        return str(json.loads((file.metadata() or {})["tts"]).get("tokenizer", ""))


def read_part(path: Path, device: str | torch.device = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """A part as `write_part` saved it, in evaluation mode, and its metadata.

    Raises:
        UserError: the file is no part of a model, is of a newer format, or not what its config says.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get("tts")
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error
    if text is None:
        raise UserError(f"{path}: safetensors, but not a part of a model of this project")
    note = _note(path, text)
    _require_format(path, note)
    _upgrade(note)
    for key, value in _settings(note["config"]):
        # the parser would import what a string with dots names, and read the file that a path names
        if key != "class_path" and isinstance(value, str) and not re.fullmatch(r"[\w\s-]*", value):
            raise UserError(
                f"{path}: its config holds {value!r} for {key}, which is no setting of this project"
            )
    try:
        SymbolTable.from_list(note["symbols"])
        module = build(note["config"])
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    try:
        module.load_state_dict(_unpack(stored))
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: does not hold what its config says: {line[:300]}") from error
    return module.eval().requires_grad_(False).to(device), note


def _program() -> str:
    """Which version of the program this is."""
    try:
        return f"tts {version('tts')}"
    except PackageNotFoundError:  # run from a folder, not installed
        return "tts"


def _require_format(path: Path, note: Mapping[str, Any]) -> None:
    """Raise where a file is of a format that this version does not read; what it was written by helps then."""
    by = note.get("by", "another version")
    if note["format"] > FORMAT:
        raise UserError(
            f"{path}: format {note['format']}, this version reads up to {FORMAT}; update the program (it was written "
            f"by {by})"
        )
    if note["format"] < OLDEST:
        raise UserError(
            f"{path}: format {note['format']}, this version reads {OLDEST} to {FORMAT}; use the version that wrote it "
            f"({by}), or write the model again from its training run"
        )


def _upgrade(note: dict[str, Any]) -> None:
    """Tell the config of an older format, in place, what was not to be told then."""
    if note["config"].get("class_path") != "tts.acoustic.decoder.FlowDecoder":
        return
    for since, setting in ((2, "speaker_norm"), (3, "skip")):
        if note["format"] < since:
            note["config"]["init_args"]["dit"]["init_args"].setdefault(setting, False)


def _note(path: Path, text: str) -> dict[str, Any]:
    """The metadata of a part, with what every version of it has."""
    kinds = {"format": int, "tokenizer": str, "config": dict, "symbols": list}
    try:
        note = {"tokenizer": "", **json.loads(text)}  # the first files did not tell whose tokens they know
        if all(isinstance(note[key], kind) for key, kind in kinds.items()):
            return cast(dict[str, Any], note)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path}: its metadata is broken; write the model again from its training run")


def _pack(name: str, tensor: Tensor, storage: Storage) -> dict[str, Tensor]:
    """A tensor as it is stored: small ones and integers unchanged, matrices in the storage's precision."""
    if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < SMALL or storage == "float32":
        return {name: tensor.contiguous().clone()}
    if storage == "float16":
        return {name: tensor.half().contiguous()}
    rows = tensor.float().flatten(1)
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
    whole = (rows / scale).round().to(torch.int8).view(tensor.shape)
    return {name: whole.contiguous(), f"{name}::scale": scale[:, 0].contiguous()}


def _unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_pack`, in float32."""
    state = {}
    for name, tensor in stored.items():
        if name.endswith("::scale"):
            continue
        if (scale := stored.get(f"{name}::scale")) is not None:
            tensor = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
        state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state
