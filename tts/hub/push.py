"""What goes up: a model folder, made ready beside the original, which stays as it is."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from codec.errors import UserError
from tts.checkpoint import ADAPTER, EMBEDDED, PARTS, Model, base_of, voices
from tts.hub.card import CARD, FIGURES, card, read_figures
from tts.hub.hubs import Hub
from tts.hub.names import Name
from tts.readback import CALIBRATION
from tts.voice import Voice

PROMPT = "prompt.flac"


def push(
    folder: Path,
    name: Name,
    hub: Hub,
    *,
    licence: str = "",
    languages: Sequence[str] = (),
    evaluation: Path | None = None,
    private: bool = False,
) -> str:
    """Put a model folder on a hub; returns the revision that pins it.

    Args:
        folder: a whole model, or an adapter of the embedded one.
        name: to have there; its revision becomes a tag.
        hub: where.
        licence: as the hub names it; needed where the card's head names none.
        languages: codes of what it speaks.
        evaluation: the output of ``python -m tts.evaluate`` on this model.
        private: seen by nobody else, where a hub has that.

    Raises:
        UserError: the folder does not load, lacks a licence, or the figures are of another model; the hub refuses.
    """
    model = Model.load(folder)  # nothing broken goes up
    for path in voices(folder).values():
        Voice.load(path).require(model, str(path))
    if (folder / ADAPTER).is_file() and base_of(folder) != EMBEDDED:
        raise UserError(
            f"{folder}: an adapter of {base_of(folder)}, which nobody else has; push a model with all weights "
            "(tune with --lora 0), or one tuned from the embedded model"
        )
    figures = _figures(folder, model, evaluation)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / "model"
        for file in contents(folder):
            target = stage / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
        made = card(text, name.name, licence, list(languages), figures)
        (stage / CARD).write_text(made, encoding="utf-8")
        if figures is not None:
            (stage / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        return hub.push(stage, name.name, tag=name.revision, private=private)


def contents(folder: Path) -> list[Path]:
    """The files of a model folder that belong to the model; what else lies there stays at home."""
    names = [
        *(f"{part}.safetensors" for part in PARTS),
        ADAPTER,
        CALIBRATION,
        PROMPT,
        "LICENSE",
        "LICENSE.txt",
        "NOTICE",
    ]
    files = [folder / name for name in names if (folder / name).is_file()]
    return [*files, *sorted((folder / "voices").glob("*.safetensors"))]


def _figures(folder: Path, model: Model, evaluation: Path | None) -> dict[str, object] | None:
    from tts.evaluate.run import fingerprint
    from tts.pipeline import TTS

    if evaluation is None and not (folder / FIGURES).is_file():
        return None
    source = evaluation or folder / FIGURES
    figures = read_figures(source)
    measured, mine = figures["made_with"].get("fingerprint"), fingerprint(TTS(model))
    if measured != mine:
        raise UserError(
            f"{source}: measured on a model {measured}, and {folder} is {mine}; measure this one with "
            "python -m tts.evaluate"
        )
    return figures
