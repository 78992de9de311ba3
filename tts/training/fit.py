"""Training of one stage: Lightning's command line with a folder for the run, loggers, and errors of one line."""

import logging
import re
import zipfile
from argparse import ArgumentError
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from codec.errors import SpecError, UserError
from codec.spec import TokenSpec
from tts.training.data import SpeechData
from tts.training.logs import MetricsFile, Wandb
from tts.training.module import LAST, StageModule

log = logging.getLogger(__name__)

SHARED = Path(__file__).resolve().parents[2] / "configs" / "trainer.yaml"
TOKEN_STAGES = ("lm", "acoustic")
LOOKED_AT = 100  # cuts, of which the first ones show what the data is


def run_stage(args: Sequence[str], *, run: bool = True) -> LightningCLI:
    """Do what ``python train.py fit ...`` does; with `run` False, build model and data only.

    Args:
        args: LightningCLI's, with ``fit`` or ``validate`` in front if `run`, without if not.

    Raises:
        UserError: an argument or setting is unknown or cannot be used, a file is missing, or the run's folder
            holds a run already.
    """
    return StageCLI(list(args), run=run)


def parse_stage(args: Sequence[str]) -> dict[str, Any]:
    """All settings that ``python train.py fit`` followed by `args` would use. Raises as `run_stage` does."""
    return StageCLI(list(args), run=False, build=False).settings


class StageCLI(LightningCLI):
    """LightningCLI for the stages.

    Args:
        args: see `run_stage`.
        run: whether the first of them is a command, to be done.
        build: whether to build model and data.
    """

    def __init__(self, args: list[str], *, run: bool, build: bool = True) -> None:
        self.build, self.given = build, args
        shared = {"default_config_files": [str(SHARED)]}
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_class=Trainer,
            seed_everything_default=1,
            parser_kwargs={name: dict(shared) for name in self.subcommands()} if run else shared,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            run=run,
            auto_configure_optimizers=False,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, defaults among them, as they stand in config.yaml."""
        self._dump_config()
        settings: dict[str, Any] = self.config_dump
        return settings

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        commands = LightningCLI.subcommands()
        return {name: commands[name] for name in ("fit", "validate")}

    # ------------------------------------------------------------------------------------------------ arguments

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(exit_on_error=False, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UserError(one_line(str(error), args)) from None

    def _parse_ckpt_path(self) -> None:
        """A checkpoint changes no settings: the stages keep none in it."""

    def _set_seed(self) -> None:
        if self.build:
            super()._set_seed()

    # ------------------------------------------------------------------------------------------------- building

    def before_instantiate_classes(self) -> None:
        if self.subcommand is not None:
            settings = self.config[self.subcommand]
            _check_checkpoint(settings.ckpt_path)
            if self.subcommand == "fit":
                settings.trainer.default_root_dir = _free_folder(settings)

    def instantiate_classes(self) -> None:
        if not self.build:
            return
        try:
            if self.subcommand is not None:
                super().instantiate_classes()
                return
            self.config_init = self.parser.instantiate_classes(self.config)
            self.model, self.datamodule = self.config_init.model, self.config_init.data
        except (ValueError, MisconfigurationException) as error:
            raise UserError(one_line(str(error), self.given)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the loggers of its config after metrics.jsonl; wandb where it names none."""
        chosen = self._get(self.config_init, "trainer")["logger"]
        folder = self._get(self.config_init, "trainer")["default_root_dir"]
        kwargs["logger"] = loggers(chosen, folder) if self.subcommand == "fit" else chosen or False
        return super().instantiate_trainer(**kwargs)

    # -------------------------------------------------------------------------------------------------- running

    def before_fit(self) -> None:
        check_data(self.datamodule, self.model)

    before_validate = before_fit

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise UserError(" ".join(str(error).split())) from error
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            difference = " ".join(str(error).partition(":")[2].split())[:200]
            path = self.config[subcommand].ckpt_path
            raise UserError(f"{path}: a checkpoint of another model: {difference}") from error


class RunConfig(SaveConfigCallback):
    """Keeps all settings of a training in ``<run>/config.yaml``, and tells the loggers."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        path = Path(trainer.default_root_dir) / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)


def loggers(chosen: Any, folder: str | Path) -> list[Logger]:
    """The loggers of a training: its metrics.jsonl, and those chosen in its config.

    Args:
        chosen: `trainer.logger`: None or True for wandb, False for no other, or one or several loggers.
        folder: of the run.
    """
    if chosen is None or chosen is True:
        chosen = Wandb(folder)
    others = [] if chosen is False else chosen if isinstance(chosen, list) else [chosen]
    return [MetricsFile(folder), *others]


def _free_folder(settings: Any) -> str:
    """The folder that the config gives, or one named after the stage.

    Raises:
        UserError: there are checkpoints in it that the training would overwrite.
    """
    module, _, name = settings.model.class_path.rpartition(".")
    stage = getattr(import_module(module), name)
    folder = str(settings.trainer.default_root_dir or f"runs/{getattr(stage, 'part', name)}")
    if settings.ckpt_path is None and any(Path(folder, "checkpoints").glob("*.ckpt")):
        raise UserError(
            f"{folder} holds a run already; go on with it by --ckpt_path {folder}/checkpoints/{LAST}.ckpt, "
            "or choose another folder by --trainer.default_root_dir"
        )
    return folder


def _check_checkpoint(given: str | None) -> None:
    """Raise `UserError` where a checkpoint's path cannot be one."""
    if given is None or given in ("best", "last", "hpc") or "://" in given or given.startswith("registry"):
        return
    path = Path(given)
    if not path.exists():
        raise UserError(f"--ckpt_path {given}: no such checkpoint")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise UserError(f"--ckpt_path {given}: not a checkpoint")


def check_data(data: Any, module: Any) -> None:
    """See that the data is there and is what the model takes, before anything is written.

    Raises:
        UserError: prepared data, or tokens, are missing; the message says how they are made.
        SpecError: the data's grid is not the model's.
    """
    if not isinstance(data, SpeechData) or not isinstance(module, StageModule):
        return
    with_tokens = module.part in TOKEN_STAGES
    tool = (
        "extract --tokenizer TOKENIZER.safetensors --cuts PREPARED"
        if with_tokens
        else "prepare --manifest MANIFEST"
    )
    if folder := data.missing():
        raise UserError(
            f"{folder}: no {'tokens' if with_tokens else 'prepared data'} to train on; make them with "
            f"`python train.py {tool} --out {folder}`, or train all stages with `python train.py all`"
        )
    name, part = ", ".join(data.folders), getattr(module, module.part)
    cuts = data.train_dataset.cuts[:LOOKED_AT]
    if with_tokens:
        if any("tokens" not in (cut.custom or {}) for cut in cuts):
            raise UserError(
                f"{name}: prepared data without tokens; add them with `python train.py {tool} --out FOLDER`"
            )
        codes = part.layout.codes if module.part == "lm" else part.spec.codes
        highest = max(max(cut.custom["tokens"], default=0) for cut in cuts)
        if highest >= codes:
            raise SpecError(
                f"{name}: holds token {highest}, the model has {codes} codes; use one tokenizer for both"
            )
    if module.part != "lm":
        spec = part.spec.frames if isinstance(part.spec, TokenSpec) else part.spec
        there = (cuts[0].custom["frames"].shape[1], cuts[0].sampling_rate)
        if there != (spec.dim, spec.sample_rate):
            raise SpecError(
                f"{name}: frames of {there[0]} numbers from audio at {there[1]} Hz, the model takes {spec}; "
                "prepare the data with the model's frames"
            )


def one_line(message: str, args: Sequence[str]) -> str:
    """What jsonargparse says in a page, as one line: the key or file, what is wrong with it, the value.

    Args:
        message: jsonargparse's.
        args: the command's, to name the config file where the error is not in them.
    """
    value = re.search(r"Given value: (.*)", message)
    text = message.partition("Given value type:")[0]
    text = re.sub(r"Does not validate against any of the Union subtypes|Subtypes: .*|Errors:", "", text)
    text = re.sub(r"- Expected a <class 'NoneType'>\n?", "", text)
    text = re.sub(r'Parser key "([^"]+)":', r"\1:", text)
    text = re.sub(r"(?:- )?Problem with given class_path '([^']+)':", r"\1:", text)
    text = re.sub(r"Type \S*Callable.* expects a function or a callable class: ", "", text)
    text = re.sub(r"Got value: Namespace\(.*", "", text)
    text = " ".join(text.split())
    if value is not None and not value[1].startswith(("{", "NestedArg", "Namespace")):
        text += f", got {value[1]}"
    configs = [after for arg, after in pairwise(args) if arg in ("-c", "--config")]
    configs += [arg.partition("=")[2] for arg in args if arg.startswith("--config=")]
    if "arguments are required" in text and not configs:
        return f"{text}; give --config FILE, as --config configs/tiny/lm.yaml"
    culprit = re.findall(r"['\"]([^'\"]+)['\"]|Got value: (\S+)", text)
    named = [one for pair in culprit[-1:] for one in pair if one]
    if configs and named and not any(named[0] in arg for arg in args):
        text = f"{', '.join(configs)}: {text}"
    return text
