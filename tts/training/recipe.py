"""From a manifest to a model folder: prepare, train the tokenizer, extract tokens, train the rest, collect.

    <out>/prepared/     frames, phonemes, audio of the corpus (`tts.data.prepare`)
    <out>/tokens/       the same cuts with tokens and durations
    <out>/<stage>/      one training run: config.yaml, checkpoints/{best,last}.ckpt, metrics.jsonl, curves.png, media/
    <out>/model/        what `infer.py --model` takes

Started again, it goes on where it was: a stage whose part lies in `model/` is finished, one with a checkpoint is
resumed. What a stage was made from is noted beside it; to go on with other data or another model is an error, not a
silent mix. A part that somebody else made and put into `model/` counts as finished.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from codec.errors import SpecError, UserError
from codec.nn.lora import add_lora, merge
from codec.spec import require_same
from codec.tokenizer.model import Tokenizer
from tts.checkpoint import build, read_part, write_part
from tts.data.extract import add_tokens, add_tokens_to_shar
from tts.data.prepare import cuts_path, prepare, read_cuts, read_spec
from tts.data.shar import is_shar, read_index
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable
from tts.training.extract import TokenExtractor, own_device, processes_of, run_team, team
from tts.training.fit import TOKEN_STAGES, parse_stage
from tts.training.module import BEST, LAST

log = logging.getLogger(__name__)

STAGES = ("tokenizer", "lm", "acoustic", "vocoder")
OURS = ("trainer.default_root_dir", "data.init_args.cuts", "ckpt_path")  # settings that the recipe makes

Train = Callable[[list[str]], object]
"""Trains one stage, given LightningCLI's arguments without the command."""


@dataclass(frozen=True)
class Recipe:
    """What to train, from what, to where.

    Attributes:
        manifest: JSON lines with audio, text, speaker, language.
        configs: folder with one YAML a stage.
        out: folder for everything made.
        overrides: LightningCLI arguments for every stage, as ``--trainer.max_steps=10``.
        stage_overrides: the same for single stages.
        skip_bad: leave out the manifest's broken lines instead of stopping at the first.
        jobs: processes that prepare data.
        device: that extracts tokens.
        start: model folder whose weights, and sizes, every stage begins with; None for fresh weights and the sizes
            of the configs. So a new language learns from a model of another; phonemes that the table has gained
            since are added to it (`tts.training.start`).
    """

    manifest: Path
    configs: Path
    out: Path
    overrides: Sequence[str] = ()
    stage_overrides: Mapping[str, Sequence[str]] | None = None
    skip_bad: bool = False
    jobs: int = 1
    device: str = "cpu"
    start: Path | None = None

    @property
    def model(self) -> Path:
        """The finished model's folder."""
        return self.out / "model"

    def run(self, train: Train) -> Path:
        """Do all that is not done yet. Returns the model folder.

        Raises:
            UserError: a config, the manifest or what lies in the folder cannot be used. Configs are checked before
                anything is written, the manifest before anything is trained.
        """
        configs = {stage: parse_stage(self.arguments(stage)) for stage in STAGES}
        check_configs(configs, DEFAULT_SYMBOLS)
        features = build(configs["vocoder"]["model"]["init_args"]["features"])
        done = prepare(
            self.manifest, self._cuts("tokenizer"), features, skip_bad=self.skip_bad, jobs=self.jobs
        )
        for bad in done.bad:
            log.warning("left out: %s", bad.error)
        for stage in STAGES:
            if stage in TOKEN_STAGES:
                self._extract(processes_of(configs[stage]["trainer"]))
            self._train(stage, configs[stage], train)
        return self.model

    def arguments(self, stage: str) -> list[str]:
        """LightningCLI's arguments for a stage.

        Raises:
            UserError: its config is missing, or a setting is given that is the recipe's to make.
        """
        path = self.configs / f"{stage}.yaml"
        if not path.is_file():
            raise UserError(f"{path}: no such config; a folder of configs holds {', '.join(STAGES)}.yaml")
        given = [*self.overrides, *((self.stage_overrides or {}).get(stage, ()))]
        for one in given:
            if one.removeprefix("--").partition("=")[0] in OURS:
                raise UserError(f"{one}: cannot be given here, it follows from --out")
        ours = [
            f"--data.init_args.cuts={self._cuts(stage)}",
            f"--trainer.default_root_dir={self.out / stage}",
        ]
        if self.start is not None:
            ours += start_arguments(stage, self.start / f"{stage}.safetensors")
        if stage == "acoustic":  # trained after the tokenizer, which may read what it makes
            given.insert(0, f"--model.init_args.reader={self.model / 'tokenizer.safetensors'}")
        return ["--config", str(path), *given, *ours]

    def _cuts(self, stage: str) -> Path:
        """The data that a stage is trained on."""
        return self.out / ("tokens" if stage in TOKEN_STAGES else "prepared")

    def _train(self, stage: str, config: Mapping[str, Any], train: Train) -> None:
        """Train one stage, unless its part lies in the model folder; go on from its checkpoint, if there is one."""
        part, folder = self.model / f"{stage}.safetensors", self.out / stage
        made_from = {"model": config["model"]["init_args"][stage], "data": _mark(self._cuts(stage))}
        if self.start is not None:
            made_from["start"] = str(self.start.resolve())
        _check_made_from(folder / "made_from.json", made_from, f"remove {folder} and {part} to train it anew")
        if part.is_file():
            log.info("%s: finished already (%s)", stage, part)
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "made_from.json").write_text(json.dumps(made_from, indent=1))
        checkpoints = [folder / "checkpoints" / f"{name}.ckpt" for name in (LAST, BEST)]
        last = next((path for path in checkpoints if path.is_file()), None)
        log.info("%s: %s", stage, f"goes on from {last}" if last else f"training in {folder}")
        train([*self.arguments(stage), *([f"--ckpt_path={last}"] if last else [])])
        export(folder, part, DEFAULT_SYMBOLS)

    def _extract(self, processes: int) -> None:
        """Add tokens to all cuts with the finished tokenizer, in so many processes, unless that is done."""
        part, out, prepared = self.model / "tokenizer.safetensors", self._cuts("lm"), self._cuts("tokenizer")
        note = out / "made_from.json"
        made_from = {"tokenizer": hashlib.sha256(part.read_bytes()).hexdigest(), "prepared": _mark(prepared)}
        if note.is_file() and json.loads(note.read_text()) == made_from:
            return
        if processes == 1:
            extract(part, prepared, out, device=self.device)
        else:
            files = ["--tokenizer", str(part), "--cuts", str(prepared), "--out", str(out)]
            run_team(processes, ["extract", *files, "--device", self.device])
        note.write_text(json.dumps(made_from, indent=1))


def start_arguments(stage: str, part: Path) -> list[str]:
    """LightningCLI's arguments that begin a stage with a finished part: its weights and its sizes.

    Raises:
        UserError: no such part.
    """
    config = read_part(part)[1]["config"]
    for known in (config["init_args"], config["init_args"].get("dit", {}).get("init_args", {})):
        if known.get("symbols"):
            known["symbols"] = len(DEFAULT_SYMBOLS)
    return [f"--model.init_args.{stage}={json.dumps(config)}", f"--model.init_args.start={part.resolve()}"]


def extract(part: Path, prepared: str | Path, out: Path, *, device: str = "cpu") -> None:
    """Add tokens and durations to prepared cuts; started by torchrun, in all its processes together.

    Args:
        part: the tokenizer's file.
        prepared: folder of `tts.data.prepare`, or folder or URL of Shar.
        out: folder to write the cuts to; their frames and audio stay where they are.
        device: that the tokenizer runs on; of several GPUs each process takes its own.

    Raises:
        UserError: no tokenizer, no prepared data, or no utterance that can be aligned.
        SpecError: the tokenizer reads other frames.
    """
    tokenizer, note = read_part(part)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f"{part}: holds a {type(tokenizer).__name__}, not a tokenizer")
    shar = read_index(prepared) if is_shar(prepared) else None
    spec = read_spec(Path(prepared)) if shar is None else shar.spec
    if spec is None:
        raise UserError(f"{prepared}: was written from tokens, not from prepared data; extract before `shar`")
    require_same(spec, tokenizer.spec.frames, a_name=str(prepared), b_name=str(part))
    symbols = SymbolTable.from_list(note["symbols"])
    with team() as us:
        extractor = TokenExtractor(tokenizer, own_device(device, us))
        if shar is not None:
            add_tokens_to_shar(shar, extractor, out, symbols=symbols, team=us)
            return
        for split in ("train", "dev"):
            if cuts_path(prepared, split).is_file():
                cuts = read_cuts(cuts_path(prepared, split))
                add_tokens(cuts, extractor, cuts_path(out, split), symbols=symbols, team=us)
            elif us.rank == 0:
                cuts_path(out, split).unlink(missing_ok=True)


def _mark(cuts: Path) -> Any:
    """What a folder of cuts was made from."""
    prepared, tokens = cuts / "prepared.json", cuts / "made_from.json"
    return (
        json.loads(tokens.read_text())
        if tokens.is_file()
        else json.loads(prepared.read_text())["fingerprint"]
    )


def _check_made_from(note: Path, now: Mapping[str, Any], way_out: str) -> None:
    """Raise `UserError` where something was made from other inputs than it would be now."""
    if not note.is_file():
        return
    then = dict(_leaves(json.loads(note.read_text())))
    for key, value in _leaves(json.loads(json.dumps(now))):
        if then.get(key) != value:
            what = "other data" if key.startswith("data") else f"{key} {then.get(key)!r}, now {value!r}"
            raise UserError(f"{note.parent} was made from {what}; {way_out}, or choose another --out")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in nested dictionaries."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def check_configs(configs: Mapping[str, Any], symbols: SymbolTable) -> None:
    """Build all parts without memory and see that they fit, before hours go into one of them.

    Raises:
        SpecError: two parts do not share one grid, or one phoneme table.
        UserError: a config cannot be built.
    """
    parts: dict[str, Any] = {}
    with torch.device("meta"):
        for stage in STAGES:
            arguments = configs[stage]["model"]["init_args"]
            parts[stage] = build(arguments[stage])
    tokenizer = parts["tokenizer"]
    require_same(parts["acoustic"].spec, tokenizer.spec, a_name="acoustic.yaml", b_name="tokenizer.yaml")
    require_same(parts["vocoder"].spec, tokenizer.spec.frames, a_name="vocoder.yaml", b_name="tokenizer.yaml")
    layout = parts["lm"].layout
    if (layout.symbols, layout.codes) != (tokenizer.symbols, tokenizer.spec.codes):
        raise SpecError(
            f"lm.yaml and tokenizer.yaml do not fit together: {layout.symbols} symbols and {layout.codes} codes, "
            f"against {tokenizer.symbols} and {tokenizer.spec.codes}"
        )
    told = parts["acoustic"].dit.symbols or len(symbols)  # a decoder without a table fits any
    for stage, known in (("tokenizer", tokenizer.symbols), ("acoustic", told)):
        if known != len(symbols):
            raise SpecError(f"{stage}.yaml has {known} symbols, the phoneme table has {len(symbols)}")


def export(
    run: Path, part: Path, symbols: SymbolTable, *, checkpoint: str = BEST, storage: str = "float32"
) -> None:
    """Take the bare model out of a training run: its best checkpoint, or the last where none was validated.

    The vocoder's run knows the frames, so features.safetensors is written beside it.

    Args:
        run: the run's folder, with config.yaml and checkpoints/.
        part: file to write, named after the stage.
        symbols: the phoneme table to note in it.
        checkpoint: which one.
        storage: see `tts.checkpoint.write_part`.

    Raises:
        UserError: the run has no checkpoint or no config.
    """
    settings, state = read_run(run, part.stem, checkpoint)
    for name in (part.stem, *(["features"] if "features" in settings else [])):
        module = trained(run, name, settings, state)
        merge(module)
        write_part(
            part.with_stem(name),
            module,
            settings[name],
            symbols,
            storage=storage if name == part.stem else "float32",
        )


def read_run(run: Path, stage: str, checkpoint: str = BEST) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model settings of a training run (``model.init_args`` of its config), and a checkpoint's weights.

    Raises:
        UserError: the run has no checkpoint or no config, or is of another stage.
    """
    found = [run / "checkpoints" / f"{name}.ckpt" for name in (checkpoint, LAST)]
    path = next((one for one in found if one.is_file()), None)
    if path is None or not (run / "config.yaml").is_file():
        raise UserError(f"{run}: no training run (no checkpoint or no config.yaml in it)")
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["init_args"]
    if stage not in settings:
        raise UserError(f"{run}: the run of another stage, it trained no {stage}")
    return settings, torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


def trained(run: Path, name: str, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """A module of a training run with its weights, adapters still on it where the run had some.

    Args:
        run: its folder, for messages.
        name: of the module in the stage: the stage's own name, or "features".
        settings, state: of `read_run`.

    Raises:
        UserError: config and checkpoint do not belong together.
    """
    module = build(settings[name])
    if settings.get("lora") and name in STAGES:
        add_lora(module, settings["lora"])
    tensors = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        difference = " ".join(str(error).partition(":")[2].split())[:200]
        raise UserError(
            f"{run}: config.yaml and its checkpoint do not belong together: {difference}"
        ) from error
    return module
