"""Where models lie for everybody: a role with two players."""

import shutil
import uuid
from pathlib import Path
from typing import Any, Protocol

from codec.audio import write_whole
from codec.errors import UserError
from tts.hub.sums import FILE, write_sums

MAIN = "main"


class Hub(Protocol):
    """Role: keeps the states of models under names, each under a revision of its own."""

    def push(self, folder: Path, name: str, *, tag: str = "", private: bool = False) -> str:
        """Put a folder there as the newest state of a model; returns its revision.

        Raises:
            UserError: it cannot be reached, or refuses.
        """
        ...

    def pull(self, name: str, revision: str = "") -> Path:
        """A folder with a state of a model, the newest by default; nobody writes into it.

        Raises:
            UserError: no such model or revision, or the hub cannot be reached and the state is not here yet.
        """
        ...


def hub_of(hub: Hub | str | Path | None) -> Hub:
    """A hub by a folder that acts as one; None is the Hugging Face hub."""
    if hub is None:
        return HuggingFaceHub()
    return FolderHub(Path(hub)) if isinstance(hub, str | Path) else hub


class FolderHub:
    """A folder that acts as a hub: on a shared disk, or in a test.

    ``<root>/<owner>/<model>/<revision>/`` holds a state, a revision being a digest of the checksums;
    ``<root>/<owner>/<model>/refs/<tag>`` the revision that a tag or ``main`` means.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def push(self, folder: Path, name: str, *, tag: str = "", private: bool = False) -> str:
        """See `Hub`; `private` says nothing here."""
        home = self.root / name
        tagged = home / "refs" / tag
        part = home / f".{uuid.uuid4().hex}.part"
        shutil.copytree(folder, part)
        try:
            revision = write_sums(part)
            if tag and tagged.is_file() and tagged.read_text() != revision:
                raise UserError(f"{name} has a tag {tag} already, of another state; give another --tag")
            if not (home / revision).exists():
                part.rename(home / revision)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        (home / "refs").mkdir(exist_ok=True)
        for ref in {MAIN, tag} - {""}:
            write_whole(home / "refs" / ref, revision.encode())
        return revision

    def pull(self, name: str, revision: str = "") -> Path:
        """See `Hub`."""
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder to act as a hub; check the path")
        home = self.root / name
        if not (home / "refs").is_dir():
            raise UserError(f"{self.root} has no model {name}; it has {', '.join(self._names()) or 'none'}")
        ref = home / "refs" / (revision or MAIN)
        folder = home / (ref.read_text() if ref.is_file() else revision)
        if not (folder / FILE).is_file():
            known = ", ".join(sorted(path.name for path in (home / "refs").iterdir()))
            raise UserError(f"{name} has no revision {revision!r}; give {known}, or what push printed")
        return folder

    def _names(self) -> list[str]:
        return sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in self.root.glob("*/*/refs"))


class HuggingFaceHub:
    """The Hugging Face hub, through its own library: cache, login, mirrors and offline mode are as that has them.

    Args:
        api: a ``huggingface_hub.HfApi``; its own by default.
    """

    def __init__(self, api: Any = None) -> None:
        self._given = api

    @property
    def _api(self) -> Any:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise UserError(
                "models by name come from the Hugging Face hub, whose library is not installed; "
                'run pip install ".[hub]"'
            ) from error
        return self._given or HfApi(library_name="tts")

    def push(self, folder: Path, name: str, *, tag: str = "", private: bool = False) -> str:
        """See `Hub`. Needs a login: ``hf auth login``."""
        write_sums(folder)
        api = self._api
        try:
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=f"Model {tag}".strip(), delete_patterns="*"
            )
            if tag:
                api.create_tag(name, tag=tag, revision=commit.oid)
        except Exception as error:
            raise _told(error, name, "") from error
        return str(commit.oid)

    def pull(self, name: str, revision: str = "") -> Path:
        """See `Hub`. What was fetched once is there offline, too."""
        api = self._api
        try:
            return Path(api.snapshot_download(name, revision=revision or None))
        except Exception as error:
            raise _told(error, name, revision) from error


def _told(error: Exception, name: str, revision: str) -> Exception:
    """An error of the library's in our words; one that is a bug stays as it is."""
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(
            f"{name} has no revision {revision!r} on the Hugging Face hub; see its page for those it has"
        )
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{name} is given only to who agreed to its terms; do so on its page, then hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"the Hugging Face hub has no model {name} that you may see; check the name, or log in with hf auth login"
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return UserError("not logged in to the Hugging Face hub; run hf auth login")
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{name!r} is no name of the Hugging Face hub ({_line(error)})")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return UserError(
            f"the Hugging Face hub does not let you write {name}; run hf auth login with a token that may"
        )
    if status is not None:
        return UserError(
            f"the Hugging Face hub answered {status} for {name}; try again later ({_line(error)})"
        )
    if isinstance(error, OSError | errors.HTTPError):  # no way there, a full disk, or asked to stay offline
        state = f"{name}@{revision}" if revision else name
        return UserError(
            f"{state} is not on this machine yet, and the Hugging Face hub cannot be reached: connect and run "
            f"python -m tts.hub pull {state}, or give a model folder ({_line(error)})"
        )
    return error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
