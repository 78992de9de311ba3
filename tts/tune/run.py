"""From a manifest and a base model to a tuned model folder.

    <out>/prepared/, tokens/, replay/   the data
    <out>/lm/, acoustic/                the two training runs
    <out>/tuned/                        the model that came out; it is kept in model/ only if it is better
    <out>/evaluation/                   before and after, with pages to listen to
    <out>/model/                        what `infer.py --model` takes: the tuned model, with its voices

Started again, it goes on where it was.
"""

import hashlib
import json
import logging
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from lhotse.cut import MonoCut
from torch import Tensor, nn
from torchaudio.functional import edit_distance

from codec.errors import UserError
from codec.nn.lora import lora_state, merge
from tts.checkpoint import ADAPTER, EMBEDDED, PARTS, Model, read_part, write_adapter, write_part
from tts.data.datasets import phonemes_of, speaker_of
from tts.data.prepare import cuts_path, prepare, read_cuts, relative_cuts, write_cuts
from tts.lm.model import SpeechLM
from tts.pipeline import TTS
from tts.readback import CALIBRATION
from tts.text.symbols import SymbolTable
from tts.training.recipe import extract, read_run, trained
from tts.tune.held_out import best_strength, blended, reading_error
from tts.tune.plan import Plan, plan_for
from tts.tune.sentences import ENGLISH, is_english
from tts.voice import Voice

log = logging.getLogger(__name__)

STAGES = ("lm", "acoustic")
VOICES = 5  # speakers at most that a voice is saved of, those with most speech
PROMPT = (3.0, 8.0)  # seconds that a voice prompt should last
COMPARED = 50  # held-out utterances at most whose loss is measured at each strength
SAID = 20  # held-out sentences at most that the LM has to write
CHECKS = 8  # validations in a training
LEAST_REPLAY = 300.0  # seconds of base data, where any are replayed: fewer would be learnt by heart
PATIENCE = 3  # of them without improvement, and the training ends

Train = Callable[[list[str]], object]
"""Trains one stage, given LightningCLI's arguments without the command."""


@dataclass(frozen=True)
class Tuning:
    """What to tune, on what, to where.

    Attributes:
        manifest: as for training.
        out: folder for everything made.
        base: model folder to begin with.
        lora, steps, lr: what to do otherwise than `plan_for` says.
        replay: folders of cuts with the base tokenizer's tokens, of which so much is mixed in as the plan says.
        skip_bad: leave out the manifest's broken lines.
        overrides: LightningCLI arguments for both stages, as ``--trainer.accelerator=gpu``.
    """

    manifest: Path
    out: Path
    base: Path = EMBEDDED
    lora: int | None = None
    steps: int | None = None
    lr: float | None = None
    replay: Sequence[Path] = ()
    skip_bad: bool = False
    overrides: Sequence[str] = field(default_factory=tuple)

    @property
    def tuned(self) -> Path:
        """Where the tuned model is written."""
        return self.out / "tuned"

    def check(self) -> None:
        """Raise `UserError` where the base cannot be tuned, or `out` holds the tuning of something else."""
        if (self.base / ADAPTER).is_file():
            raise UserError(
                f"{self.base}: is tuned with adapters itself; tune its base on both sets of recordings"
            )
        Model.load(self.base)
        note, now = (
            self.out / "made_from.json",
            {"base": str(self.base.resolve()), "manifest": _mark(self.manifest)},
        )
        if note.is_file() and json.loads(note.read_text()) != now:
            raise UserError(f"{self.out} holds the tuning of another base or manifest; choose another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(now, indent=1))

    def run(self, train: Train) -> Path:
        """Do all that is not done yet. Returns the folder of the tuned model.

        Raises:
            UserError: the manifest, the base or what lies in `out` cannot be used.
        """
        self.check()
        features, _ = read_part(self.base / "features.safetensors")
        done = prepare(self.manifest, self.out / "prepared", features, skip_bad=self.skip_bad)
        for bad in done.bad:
            log.warning("left out: %s", bad.error)
        if not (self.out / "tokens" / "cuts_train.jsonl.gz").is_file():
            extract(self.base / "tokenizer.safetensors", self.out / "prepared", self.out / "tokens")
        plan = plan_for(sum(cut.duration for cut in self.cuts("train")))
        plan = plan.changed(lora=self.lora, steps=self.steps, lr=self.lr)
        log.info("plan: %s", ", ".join(f"{k} {v:g}" for k, v in asdict(plan).items()))
        folders = [self.out / "tokens", *self._replayed(plan)]
        for stage in STAGES:
            self._train(stage, plan, folders, train)
        self._collect(plan)
        return self.tuned

    def cuts(self, split: str) -> list[MonoCut]:
        """The cuts of a split, with tokens; none where there is no such split."""
        path = cuts_path(self.out / "tokens", split)
        return list(read_cuts(path)) if path.is_file() else []

    def speakers(self) -> dict[str, list[MonoCut]]:
        """Each speaker's cuts of the split "train"."""
        found: dict[str, list[MonoCut]] = defaultdict(list)
        for cut in self.cuts("train"):
            found[speaker_of(cut)].append(cut)
        return found

    def _replayed(self, plan: Plan) -> list[Path]:
        """A folder with as much of the base data as the plan asks for, drawn once.

        Where that is more than asked for, because less would be learnt by heart, the new recordings are in it, too, as
        often as keeps their share.
        """
        folder = self.out / "replay"
        path = cuts_path(folder, "train")
        if not self.replay or not plan.replay:
            return []
        if not path.is_file():
            at_hand = [cut for one in self.replay for cut in read_cuts(cuts_path(one, "train"))]
            random.Random(0).shuffle(at_hand)
            new = self.cuts("train")
            asked = plan.replay * sum(cut.duration for cut in new)
            wanted, chosen = max(asked, LEAST_REPLAY), list[MonoCut]()
            for cut in at_hand:
                if wanted <= 0:
                    break
                wanted -= cut.duration
                chosen.append(cut)
            copies = round(sum(cut.duration for cut in chosen) / asked) - 1
            chosen += [cut.with_id(f"{cut.id}~{n}") for n in range(copies) for cut in new]
            folder.mkdir(parents=True, exist_ok=True)
            write_cuts(relative_cuts(chosen, folder), path)
        return [folder]

    def config(self, stage: str, plan: Plan, folders: Sequence[Path]) -> dict[str, Any]:
        """A stage's settings, as a YAML file of `configs/` has them, with the base's own sizes."""
        _, note = read_part(self.base / f"{stage}.safetensors")
        steps = plan.steps(stage)
        stop = {
            "class_path": "lightning.pytorch.callbacks.EarlyStopping",
            "init_args": {"monitor": "val/loss", "patience": PATIENCE, "strict": False},
        }
        name = {"lm": "LM", "acoustic": "Acoustic"}[stage]
        dataset: dict[str, Any] = {"class_path": f"tts.data.datasets.{name}Dataset", "init_args": {}}
        if stage == "lm":
            sizes = {key: note["config"]["init_args"][key] for key in ("symbols", "codes")}
            dataset["init_args"] = {"layout": {"class_path": "tts.lm.layout.Layout", "init_args": sizes}}
        return {
            "model": {
                "class_path": f"tts.training.{stage}.{name}Module",
                "init_args": {
                    stage: note["config"],
                    "start": str((self.base / f"{stage}.safetensors").resolve()),
                    "lora": plan.lora,
                    "lr": plan.lr,
                    "warmup": max(1, steps // 10),
                    "total": steps,
                },
            },
            "data": {
                "class_path": "tts.training.data.SpeechData",
                "init_args": {
                    "cuts": [str(one.resolve()) for one in folders],
                    "dataset": dataset,
                    "max_duration": 40,
                    "num_workers": 0,
                },
            },
            "trainer": {
                "gradient_clip_val": 1.0,
                "max_steps": steps,
                "max_epochs": -1,
                "val_check_interval": max(1, steps // CHECKS),
                "check_val_every_n_epoch": None,
                "callbacks": [stop] if cuts_path(self.out / "tokens", "dev").is_file() else [],
                "default_root_dir": str(self.out / stage),
            },
        }

    def _train(self, stage: str, plan: Plan, folders: Sequence[Path], train: Train) -> None:
        done, run = self.out / stage / "finished", self.out / stage
        if done.is_file():
            return
        run.mkdir(parents=True, exist_ok=True)
        path, last = run / "settings.yaml", run / "checkpoints" / "last.ckpt"
        path.write_text(yaml.safe_dump(self.config(stage, plan, folders)), encoding="utf-8")
        resume = [f"--ckpt_path={last}"] if last.is_file() else []
        train(["--config", str(path), *self.overrides, *resume])
        done.touch()

    def _collect(self, plan: Plan) -> None:
        """Write the tuned model: a small file beside the base, or a whole folder."""
        base, voices = self.base, self._voices()
        shutil.rmtree(self.tuned, ignore_errors=True)
        learnt = self._learnt(voices)
        if plan.lora:
            write_adapter(
                self.tuned, base, {stage: one.adapters() for stage, one in learnt.items() if one is not None}
            )
        else:
            self.tuned.mkdir(parents=True)
            for part in PARTS:
                if learnt.get(part) is None:
                    shutil.copyfile(base / f"{part}.safetensors", self.tuned / f"{part}.safetensors")
            _, note = read_part(base / "tokenizer.safetensors")
            symbols = SymbolTable.from_list(note["symbols"])
            for stage, one in learnt.items():
                if one is not None:
                    write_part(self.tuned / f"{stage}.safetensors", one.merged, one.config, symbols)
        if (base / CALIBRATION).is_file():  # of the tokenizer, which is the base's
            shutil.copyfile(base / CALIBRATION, self.tuned / CALIBRATION)
        (self.tuned / "voices").mkdir(exist_ok=True)
        for name, voice in voices.items():
            voice.save(self.tuned / "voices" / f"{name}.safetensors", overwrite=True)

    def _learnt(self, voices: Mapping[str, Voice]) -> dict[str, "_Learnt | None"]:
        """What training made of each stage, as far as it helps; None where the base's stays."""
        found: dict[str, _Learnt | None] = {}
        dev = self.cuts("dev")
        dev = dev[:: max(1, len(dev) // COMPARED)][:COMPARED]
        for stage in STAGES:
            settings, state = read_run(self.out / stage, stage)
            net = trained(self.out / stage, stage, settings, state).eval()
            merged = deepcopy(net)
            merge(merged)
            base, _ = read_part(self.base / f"{stage}.safetensors")
            strength, found[stage] = 1.0, None
            if dev:
                strength, before, after = best_strength(base, merged, dev)
                log.info("%s: held-out loss %.4f -> %.4f, at strength %g", stage, before, after, strength)
            if not strength:
                log.warning(
                    "the %s stays as it was: what it learnt does not help with held-out speech", stage
                )
                continue
            made = blended(base, merged, strength)
            if stage != "lm" or self._reads(made, voices):
                found[stage] = _Learnt(settings[stage], net, made, strength)
        return found

    def _reads(self, lm: nn.Module, voices: Mapping[str, Voice]) -> bool:
        """Whether what an LM writes in the new voices reads no worse than what the base's does."""
        if not (said := self._said()):
            return True
        base = Model.load(self.base)
        before, after = (
            reading_error(TTS(replace(base, lm=one)), said, voices) for one in (base.lm, cast(SpeechLM, lm))
        )
        log.info("lm: %.1f %% -> %.1f %% of what it writes is misread", 100 * before, 100 * after)
        if after > before:
            log.warning("the lm stays as it was: what it writes in the new voices reads worse")
        return after <= before

    def _said(self) -> dict[str, list[str]]:
        """Sentences to write that nothing was trained on, by language."""
        said: dict[str, list[str]] = defaultdict(list)
        for cut in self.cuts("dev")[:SAID]:
            said[cut.supervisions[0].language or "en-us"].append(cut.supervisions[0].text)
        english = next((cut for cut in self.cuts("train") if is_english(cut)), None)
        if english is not None:
            said[english.supervisions[0].language or "en-us"] += ENGLISH
        return said

    def _voices(self) -> dict[str, Voice]:
        """One voice prompt a speaker, from the recording that the tokenizer reads best among those of good length."""
        model = Model.load(self.base)  # voices are of the tokenizer, which stays
        by_speaker = self.speakers()
        most = sorted(by_speaker, key=lambda name: -sum(cut.duration for cut in by_speaker[name]))[:VOICES]
        voices = {}
        for name in most:
            cut = best_prompt(model, by_speaker[name])
            safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
            voices[safe] = Voice.from_audio(
                Path(cut.recording.sources[0].source),
                text=cut.supervisions[0].text,
                language=cut.supervisions[0].language or "en-us",
                model=model,
                origin=f"{name}, tuned on",
            )
        return voices


@dataclass(frozen=True)
class _Learnt:
    """A stage after its training.

    Attributes:
        config: of the module.
        net: as trained, adapters still on it.
        merged: between the base and that, without adapters.
        strength: how far from the base.
    """

    config: dict[str, Any]
    net: nn.Module
    merged: nn.Module
    strength: float

    def adapters(self) -> dict[str, Tensor]:
        """What it adds to the base's weights, as `lora_state` gives it."""
        state = lora_state(self.net)
        return {name: one * self.strength if name.endswith(".up") else one for name, one in state.items()}


def best_prompt(model: Model, cuts: Sequence[MonoCut], *, look_at: int = 50) -> MonoCut:
    """The recording to take a speaker's voice from.

    Of the right length, if there are such, and of those the one that the tokenizer reads with the fewest errors: the
    clearest, and the one whose text is surely what is said.
    """
    low, high = PROMPT
    good = [cut for cut in cuts if low <= cut.duration <= high] or sorted(cuts, key=lambda cut: -cut.duration)
    symbols = model.symbols

    def errors(cut: MonoCut) -> float:
        wanted = symbols.segments(symbols.encode(phonemes_of(cut)))
        read = model.tokenizer.read(torch.tensor(cut.custom["tokens"])[None])[0]
        return float(edit_distance(read, wanted)) / max(1, len(wanted))

    return min(good[:look_at], key=errors)


def _mark(manifest: Path) -> str:
    """What tells one manifest from another."""
    if not manifest.is_file():
        raise UserError(f"{manifest}: no such manifest")
    return hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
