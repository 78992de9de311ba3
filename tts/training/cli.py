"""Command line of training: Lightning's own for one stage, and `all` for a whole model from a manifest."""

import sys
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback

from codec.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / "configs" / "trainer.yaml"


class StageCLI(LightningCLI):
    """LightningCLI that knows the trainer settings shared by all stages, configs/trainer.yaml."""


def run_stage(args: list[str]) -> StageCLI:
    """Run ``fit``, ``validate`` ... as ``python train.py`` does, with LightningCLI's arguments."""
    return StageCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        trainer_class=Trainer,
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=1,
        parser_kwargs={name: {"default_config_files": [str(SHARED)]} for name in ("fit", "validate")},
        args=args,
    )


def main() -> None:
    """Entry of ``python train.py``."""
    try:
        run_stage(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
