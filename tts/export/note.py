"""What an export says of itself, so that it is never run with a model that it is not of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from codec.errors import SpecError, UserError
from tts.checkpoint import Model

FILE = "tts.json"
"""Name of the note in an exported folder; other files keep it in their metadata, under the key ``tts``."""


@dataclass(frozen=True)
class Note:
    """Of what an export is made.

    Attributes:
        weights: fingerprint of the part that was exported.
        tokenizer: fingerprint of the trained tokenizer whose tokens it speaks, see `Model.tokenizer_id`.
        symbols, codes: sizes of the phoneme table and of the codebook.
    """

    weights: str
    tokenizer: str
    symbols: int
    codes: int

    @classmethod
    def of(cls, model: Model, part: str = "lm") -> "Note":
        """The note for an export of one part of a model."""
        state = getattr(model, part).state_dict()
        layout = model.lm.layout
        return cls(fingerprint(state), model.tokenizer_id, layout.symbols, layout.codes)

    @classmethod
    def read(cls, text: str | bytes | None, name: str) -> "Note":
        """The note that `text` wrote.

        Raises:
            UserError: there is none.
        """
        try:
            known = json.loads(text or "")
            return cls(**{field.name: known[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{name}: no export of this project; write it with python -m tts.export"
            ) from error

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))

    def require(self, model: Model, name: str, part: str = "lm") -> None:
        """Raise if the export is not of this model's part.

        Raises:
            SpecError: see above.
        """
        if self != (mine := Note.of(model, part)):
            raise SpecError(
                f"{name} and {model.folder} do not fit together: it was exported from the weights {self.weights}, "
                f"the model's are {mine.weights}; export it again with python -m tts.export"
            )


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """What tells one set of weights from another."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def metadata(note: Note) -> dict[str, Any]:
    """As key and value, for formats that keep such pairs."""
    return {"tts": note.text()}
