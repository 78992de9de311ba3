"""What all four training modules share: the optimizer, checkpoints, resuming to the same loss, logs and pictures."""

import time
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from codec.nn.lora import add_lora
from tts.training.logs import Curves
from tts.training.media import Item, Media
from tts.training.optimizer import Kind, block_matrices, muon
from tts.training.schedules import warmup_cosine
from tts.training.start import load_start

BEST, LAST = "best", "last"

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")
Random = dict[str, Tensor]
"""The state of the random generators, by device type."""


class StageModule(LightningModule):
    """Base of the stages.

    Attributes:
        part: name of the attribute that holds the model which inference needs, also of its file.
        monitor: the validation metric, lower is better, that the best checkpoint has lowest.

    Args:
        lr, warmup, total: peak learning rate, and steps of `schedules.warmup_cosine`.
        optimizer: "adamw", or "muon" for the linear layers of the blocks (`tts.training.optimizer`).
        start: a part's .safetensors file whose weights to begin with; None for fresh ones.
        lora: rank of the adapters that alone are trained (`codec.nn.lora`); 0 trains all weights.
    """

    part: ClassVar[str]
    monitor: ClassVar[str] = "val/loss"

    def __init__(
        self,
        *,
        lr: float,
        warmup: int,
        total: int,
        optimizer: Kind = "adamw",
        start: str | None = None,
        lora: int = 0,
    ) -> None:
        super().__init__()
        self.lr, self.warmup, self.total = lr, warmup, total
        self.optimizer = optimizer
        self.start, self.lora = start, lora
        self._matrices: set[str] = set()
        self._random: Random | None = None
        self._stepping = False
        self._resumed = False

    def configure_callbacks(self) -> list[Callback]:
        """Checkpoints, unless they are turned off, curves and pictures, all below the run's folder."""
        folder = Path(self.trainer.default_root_dir)
        kept: list[Callback] = []
        if self.trainer.checkpoint_callbacks:
            kept.append(Best(folder, self.monitor))
            if not any(
                isinstance(callback, Last) for callback in cast(Any, self.trainer).callbacks
            ):  # of the config
                kept.append(Last())
        return [Curves(), Media(folder / "media"), *kept]

    def begin(self, model: M) -> M:
        """The model as its training begins: with the weights of `start`, and with adapters where `lora` asks.

        Raises:
            UserError: `start` is no part of a model, or of a model of other sizes.
        """
        if self.start is not None:
            load_start(model, Path(self.start))
        if self.lora:
            add_lora(model, self.lora)
        return model

    def setup(self, stage: str) -> None:
        """Note which weights are matrices: a strategy that shards them makes all of them flat."""
        self._matrices = self._find_matrices()

    def _find_matrices(self) -> set[str]:
        return {name for name, weight in self.named_parameters() if weight.ndim >= 2}

    def optimize(self, model: nn.Module, *, betas: tuple[float, float], weight_decay: float) -> Any:
        """The optimizer with warm-up and cosine; weight decay for matrices, none for norms, biases and vectors."""
        own = {id(p) for p in model.parameters() if p.requires_grad}
        learning = [(whole_name(name), p) for name, p in self.named_parameters() if id(p) in own]
        known = self._matrices or self._find_matrices()
        matrices = [p for name, p in learning if name in known]
        vectors = [p for name, p in learning if name not in known]
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            optimizer = muon(block_matrices(model), groups, self.lr, betas=betas)
        else:
            optimizer = torch.optim.AdamW(groups, self.lr, betas=betas)
        schedule = warmup_cosine(optimizer, warmup=self.warmup, total=self.total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def log(self, *args: Any, **settings: Any) -> None:
        """Lightning's, but for the mean over devices: of whole batch sizes it would cut the fraction off."""
        size = settings.pop("batch_size", None)
        super().log(*args, batch_size=None if size is None else float(size), **settings)  # type: ignore

    def show(self, batch: Any) -> list[Item]:
        """Pictures and sounds of a validation batch's first cases; called in evaluation mode, without gradients."""
        return []

    # The training steps have a random stream of their own: it goes on where the step before left it, whatever
    # validation, loaders or pictures have drawn in between. Saved with the checkpoint, which Lightning does not do,
    # it makes a resumed run draw the noise that an uninterrupted one would have drawn.

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self._random is not None:
            set_random(self._random)
        elif self.trainer.global_rank:  # every process starts with one seed; the noise is not to be the same
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)
        self._stepping = True
        if self._resumed:  # Lightning counts a batch too many after a checkpoint of an epoch's end
            loop, self._resumed = self.trainer.fit_loop.epoch_loop, False
            loop._batches_that_stepped = loop.total_batch_idx // self.trainer.accumulate_grad_batches
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._random, self._stepping = get_random(), False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # callbacks save before `on_train_batch_end`
        state = get_random() if self._stepping or self._random is None else self._random
        checkpoint["random"] = gather(state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("random", [])
        rank, self._resumed = self.trainer.global_rank, True
        self._random = states[rank] if rank < len(states) else None


class Best(ModelCheckpoint):
    """``checkpoints/best.ckpt``: the checkpoint with the lowest validation metric so far."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            folder / "checkpoints", filename=BEST, monitor=monitor, mode="min", enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score along where its checkpoint is, also in a folder that was moved.

        A run that goes on in another folder begins anew: the best checkpoint there must be its own.
        """
        path, score = str(Path(str(self.dirpath)) / f"{BEST}.ckpt"), state_dict["best_model_score"]
        if score is not None and Path(path).is_file():
            moved = {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: score}}
            super().load_state_dict({**state_dict, **moved, "kth_value": score, "dirpath": self.dirpath})


class Last(Checkpoint):
    """``checkpoints/last.ckpt``: the newest state, to go on from.

    Written at the end, when the process is told to end (SIGTERM), and every so many optimizer steps, but not more
    often than every so many seconds: the largest models take a while to write.

    Not `ModelCheckpoint`, which for optimizers stepped by hand saves where the count of steps divides by a number;
    with two optimizers to a batch it may step over it for ever.

    A config that wants other numbers names it among ``trainer.callbacks``.

    Args:
        steps, seconds: see above.
    """

    def __init__(self, *, steps: int = 100, seconds: float = 300.0) -> None:
        self.path, self.steps, self.seconds = Path("checkpoints", f"{LAST}.ckpt"), steps, seconds
        self._step, self._time = 0, 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.path = Path(trainer.default_root_dir, "checkpoints", f"{LAST}.ckpt")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self._time = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step - self._step < self.steps:
            return
        self._step = trainer.global_step
        if trainer.strategy.broadcast(time.monotonic() - self._time >= self.seconds):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(
            exception, SIGTERMException
        ):  # raised between two steps; others may be in the middle of one
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(self.path)
            self._time = time.monotonic()


def whole_name(name: str) -> str:
    """A weight's name without what FSDP puts into it."""
    return name.replace("_fsdp_wrapped_module.", "")


def over_all(loss: Tensor, things: Tensor) -> Tensor:
    """A loss weighted such that its mean over the devices is the mean over the things of all of them.

    Gradients are averaged over the devices, each counting the same, though one may have fewer frames or tokens in
    its batch than another.

    Args:
        loss: the mean over the things in this device's batch, ().
        things: their number, ().
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return loss
    total = things.detach().clone()
    torch.distributed.all_reduce(total)
    share = things / (total / torch.distributed.get_world_size())
    return loss * share.to(loss.dtype)


def get_random() -> Random:
    """The state of this process's generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random(state: Random) -> None:
    """Set what `get_random` gave."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def gather(thing: T) -> list[T]:
    """Every process's own, by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [thing]
    things: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(things, thing)
    return things
