"""Names of models on a hub, and what a user means by the name of a model."""

import re
from dataclasses import dataclass
from pathlib import Path

from codec.errors import UserError
from tts.hub.hubs import Hub, hub_of
from tts.hub.sums import verify

_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?")


@dataclass(frozen=True)
class Name:
    """A model on a hub.

    Attributes:
        name: ``owner/model``.
        revision: a tag, a branch or a revision's own name; "" is the newest.
    """

    name: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @classmethod
    def read(cls, text: str) -> "Name":
        """The name that a string is.

        Raises:
            UserError: it is none.
        """
        found = _NAME.fullmatch(text)
        if found is None:
            raise UserError(f"{text!r} is no name on a hub; give owner/model or owner/model@revision")
        return cls(found["name"], found["revision"] or "")


def located(model: str | Path, hub: Hub | str | Path | None = None) -> Path:
    """The folder that is meant: one that exists, or one that is fetched from a hub and whole.

    A path wins over a name: what exists, or begins in a folder that exists, is not looked for on a hub.

    Args:
        model: a folder, or ``owner/model`` with or without ``@revision``.
        hub: where names are looked up, see `hub_of`.

    Raises:
        UserError: it is a name, and the hub does not have it, cannot be reached, or gave something broken.
    """
    path = Path(model)
    if isinstance(model, Path) or path.exists() or not _NAME.fullmatch(model) or Path(path.parts[0]).is_dir():
        return path
    return pull(Name.read(model), hub_of(hub))


def pull(name: Name, hub: Hub) -> Path:
    """A model's folder from a hub, after its checksums were looked at.

    Raises:
        UserError: see `located`.
    """
    folder = hub.pull(name.name, name.revision)
    verify(folder, str(name))
    return folder
