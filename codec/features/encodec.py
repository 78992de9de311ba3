"""EnCodec frames: the output of EnCodec's encoder before its quantiser (Défossez et al. 2022, arXiv 2210.13438).

The second kind of frames next to log-mel: 24 kHz, hop 320, 128 numbers, 75 frames/s. Network and weights' layout
are the ``encodec`` package's. Without a file of weights they are random: nothing is ever downloaded.
"""

import pickle
import warnings
from pathlib import Path

import torch
from encodec import EncodecModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import remove_weight_norm

from codec.errors import UserError
from codec.spec import FrameSpec

ENCODEC = FrameSpec(kind="encodec", sample_rate=24_000, hop=320, dim=128, floor=0.0)
"""Latents have no value that stands for silence; padding is with zeros."""


class EncodecLatents(nn.Module):
    """Waveform -> frames. Frozen, and with weight normalisation folded into plain convolutions.

    The encoder looks at no later sample, so padding behind a recording changes none of its frames.

    Args:
        weights: file of EnCodec's weights, see `encodec_model`.
    """

    def __init__(self, *, weights: str | Path | None = None) -> None:
        super().__init__()
        self.spec = ENCODEC
        self.encoder = without_weight_norm(encodec_model(weights).encoder).requires_grad_(False)

    def forward(self, wav: Tensor) -> Tensor:
        """(B, samples) in [-1, 1] -> (B, ceil(samples / hop), dim)."""
        with torch.autocast(wav.device.type, enabled=False):
            latents: Tensor = self.encoder(wav.float()[:, None])
        return latents.transpose(1, 2)


def encodec_model(weights: str | Path | None = None) -> EncodecModel:
    """EnCodec at 24 kHz, whole.

    Args:
        weights: state dict of the whole model: the released ``encodec_24khz-d7cc33bc.th``, or the same tensors as
            safetensors. None for random weights, always the same, so that the frames data was prepared with are
            the frames that a model built later computes.

    Raises:
        UserError: the file does not hold the model's tensors.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weight_norm.*deprecated", category=FutureWarning)
        model: EncodecModel = EncodecModel.encodec_model_24khz(pretrained=False)
    torch.set_rng_state(before)
    if weights is not None:
        state, mine = _read(Path(weights)), model.state_dict()
        names = sorted(mine.keys() | state.keys())
        wrong = [k for k in names if k not in state or k not in mine or mine[k].shape != state[k].shape]
        if wrong:
            raise UserError(
                f"{weights}: not the weights of EnCodec at 24 kHz, first difference at {wrong[0]!r}; "
                "give the released encodec_24khz-d7cc33bc.th or leave them out"
            )
        model.load_state_dict(state)
    return model.train()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"no file of EnCodec's weights {path}; check the path, or leave it out for random weights"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)  # tensors only: no code is run
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{path}: not a file of weights; give a .safetensors or .th file of tensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds something else than tensors by name; give EnCodec's state dict")
    return state


def without_weight_norm(module: nn.Module) -> nn.Module:
    """Fold torch's old weight normalisation into the weights, in place.

    It keeps the product of its two parameters as an attribute, with a graph behind it, which cannot be copied or
    sent to another process.
    """
    for part in module.modules():
        if hasattr(part, "weight_g"):
            remove_weight_norm(part)
    return module
