"""From a manifest to a model folder: prepare, train the tokenizer, extract tokens, train the rest, collect.

    <out>/prepared/     frames, phonemes, audio of the corpus (`tts.data.prepare`)
    <out>/tokens/       the same cuts with tokens and durations
    <out>/<stage>/      one training run: checkpoints/{best,last}.ckpt, config.yaml, metrics.csv, pictures
    <out>/model/        what `infer.py --model` takes

Started again, it goes on where it was: a stage whose part lies in `model/` is finished, one with a last checkpoint
is resumed. Which inputs a stage was made from is noted beside it; other inputs are an error, not a silent mix.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from codec.errors import SpecError, UserError
from codec.spec import require_same
from tts.checkpoint import build, read_part, write_part
from tts.data.extract import add_tokens
from tts.data.prepare import cuts_path, prepare, read_cuts
from tts.text.symbols import DEFAULT_SYMBOLS, SymbolTable
from tts.training.extract import TokenExtractor
from tts.training.module import BEST, LAST

log = logging.getLogger(__name__)

STAGES = ("tokenizer", "lm", "acoustic", "vocoder")
RunStage = Callable[[list[str]], object]


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
    """

    manifest: Path
    configs: Path
    out: Path
    overrides: Sequence[str] = ()
    stage_overrides: Mapping[str, Sequence[str]] | None = None
    skip_bad: bool = False
    jobs: int = 1
    device: str = "cpu"

    @property
    def model(self) -> Path:
        """The finished model's folder."""
        return self.out / "model"

    def run(self, run_stage: RunStage) -> Path:
        """Do all that is not done yet; `run_stage` is `tts.training.cli.run_stage`. Returns the model folder."""
        symbols, configs = DEFAULT_SYMBOLS, {stage: self.config(stage) for stage in STAGES}
        check_configs(configs, symbols)
        features_config = configs["vocoder"]["model"]["init_args"]["features"]
        prepared, tokens = self.out / "prepared", self.out / "tokens"
        done = prepare(self.manifest, prepared, build(features_config), skip_bad=self.skip_bad, jobs=self.jobs)
        for bad in done.bad:
            log.warning("left out: %s", bad.error)
        write_part(self.model / "features.safetensors", build(features_config), features_config, symbols)
        self._train("tokenizer", prepared, symbols, run_stage, configs)
        self._extract(prepared, tokens, symbols)
        for stage in ("lm", "acoustic"):
            self._train(stage, tokens, symbols, run_stage, configs)
        self._train("vocoder", prepared, symbols, run_stage, configs)
        return self.model

    def config(self, stage: str) -> dict[str, Any]:
        """The stage's YAML.

        Raises:
            UserError: it is missing, or no YAML.
        """
        path = self.configs / f"{stage}.yaml"
        if not path.is_file():
            raise UserError(f"{path}: no such config; a folder of configs holds {', '.join(STAGES)}.yaml")
        try:
            config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
            config["model"]["init_args"]  # noqa: B018
            return config
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a stage's config ({' '.join(str(error).split())[:200]})") from error

    def _train(
        self, stage: str, cuts: Path, symbols: SymbolTable, run_stage: RunStage, configs: Mapping[str, Any]
    ) -> None:
        """Train one stage, unless its part lies in the model folder; go on from its last checkpoint."""
        part, folder = self.model / f"{stage}.safetensors", self.out / stage
        if part.is_file():
            log.info("%s: finished already (%s)", stage, part)
            return
        last = folder / "checkpoints" / f"{LAST}.ckpt"
        arguments = ["fit", "--config", str(self.configs / f"{stage}.yaml")]
        arguments += [f"--data.init_args.cuts={cuts}", f"--trainer.default_root_dir={folder}"]
        arguments += [*self.overrides, *((self.stage_overrides or {}).get(stage, ()))]
        if last.is_file():
            log.info("%s: goes on from %s", stage, last)
            arguments += [f"--ckpt_path={last}"]
        run_stage(arguments)
        export(folder, part, symbols)

    def _extract(self, prepared: Path, out: Path, symbols: SymbolTable) -> None:
        """Add tokens to all cuts with the finished tokenizer, unless that is done."""
        part = self.model / "tokenizer.safetensors"
        mark = hashlib.sha256(part.read_bytes()).hexdigest()
        note = out / "extracted.json"
        if note.is_file() and json.loads(note.read_text())["tokenizer"] == mark:
            log.info("tokens: extracted already (%s)", out)
            return
        tokenizer, _ = read_part(part)
        extractor = TokenExtractor(tokenizer, self.device)  # type: ignore[arg-type]
        for split in ("train", "dev"):
            path = cuts_path(prepared, split)
            if path.is_file():
                add_tokens(read_cuts(path), extractor, cuts_path(out, split), symbols=symbols)
        note.write_text(json.dumps({"tokenizer": mark}))


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
    if tokenizer.symbols != len(symbols):
        raise SpecError(f"tokenizer.yaml has {tokenizer.symbols} symbols, the phoneme table has {len(symbols)}")


def export(run: Path, part: Path, symbols: SymbolTable, *, checkpoint: str = BEST, storage: str = "float32") -> None:
    """Take the bare model out of a training run: its best checkpoint, or the last where none was validated.

    Args:
        run: the run's folder, with config.yaml and checkpoints/.
        part: file to write, named after the stage.
        symbols: the phoneme table to note in it.
        checkpoint: which one.
        storage: see `tts.checkpoint.write_part`.

    Raises:
        UserError: the run has no checkpoint or no config.
    """
    name = part.stem
    found = [run / "checkpoints" / f"{one}.ckpt" for one in (checkpoint, LAST)]
    path = next((one for one in found if one.is_file()), None)
    if path is None or not (run / "config.yaml").is_file():
        raise UserError(f"{run}: no finished training run (no checkpoint or no config.yaml in it)")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["model"]["init_args"][name]
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module: nn.Module = build(config)
    module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
    write_part(part, module, config, symbols, storage=storage)
