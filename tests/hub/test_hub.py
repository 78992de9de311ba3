"""Model folders go up and come back the same; what is broken, missing or out of reach is said in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from codec.errors import UserError
from tts import TTS
from tts.checkpoint import EMBEDDED, PARTS, write_adapter
from tts.evaluate.run import fingerprint
from tts.hub import FolderHub, HuggingFaceHub, Name, located
from tts.hub.__main__ import main
from tts.hub.card import split_card
from tts.hub.names import pull
from tts.hub.push import push
from tts.hub.sums import verify, write_sums

NAME = "ann/tiny"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    path = tmp_path / "hub"
    path.mkdir()
    return path


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, with things that are nobody else's business."""
    path = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (path / "notes.txt").write_text("private")
    (path / "run.ckpt").write_text("large")
    return path


def results(folder: Path, model: Path) -> Path:
    """An evaluation's output, as far as a card wants it."""
    estimate = {"value": 0.25, "low": 0.125, "high": 0.5, "cases": 7}
    known = {
        "made_with": {"model": "/secret/place", "fingerprint": fingerprint(TTS.load(model)), "seed": 0},
        "measured_by": {"intelligibility": "faster-whisper /secret/base, int8"},
        "cases": {"text": 7},
        "rows": {"text": {"wer": estimate, "similarity": estimate, "per": None}},
    }
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(known))
    return folder


# -------------------------------------------------------------------------------------------- there and back


def test_a_model_comes_back_the_same(folder: Path, hub: Path, tmp_path: Path) -> None:
    out = results(tmp_path / "measured", folder)
    revision = push(
        folder, Name(NAME, "v1"), FolderHub(hub), licence="apache-2.0", languages=["en"], evaluation=out
    )
    for name in (NAME, f"{NAME}@v1", f"{NAME}@{revision}", f"{NAME}@main"):
        tts = TTS.load(name, hub=hub)
        assert tts.model.folder == hub / NAME / revision
    state = TTS.load(folder).model.lm.state_dict()
    for key, tensor in tts.model.lm.state_dict().items():
        assert torch.equal(tensor, state[key])
    there = {path.name for path in tts.model.folder.iterdir()}
    parts = {f"{part}.safetensors" for part in PARTS}
    assert there == parts | {"README.md", "reading.json", "evaluation.json", "SHA256SUMS"}
    assert (
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tts.model.folder).returncode
        == 0
    )
    head, body = split_card((tts.model.folder / "README.md").read_text())
    assert head["license"] == "apache-2.0" and head["language"] == ["en"]
    assert head["pipeline_tag"] == "text-to-speech"
    assert head["model-index"][0]["results"][0]["metrics"][0] == {
        "type": "wer",
        "name": "word error rate",
        "value": 0.25,
    }
    assert "| word error rate | 25.0 % (12.5 to 50.0) |" in body and "7 cases" in body
    assert "secret" not in "".join(path.read_text() for path in tts.model.folder.glob("*.[jm]*"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        {*parts, "reading.json", "notes.txt", "run.ckpt"}
    )


def test_a_pinned_revision_stays_what_it_was(folder: Path, hub: Path) -> None:
    first = push(folder, Name(NAME, "v1"), FolderHub(hub), licence="mit")
    assert push(folder, Name(NAME, "v1"), FolderHub(hub), licence="mit") == first
    (folder / "README.md").write_text("# Mine\n\nAnother word.\n")
    with pytest.raises(UserError, match="has a tag v1 already, of another state"):
        push(folder, Name(NAME, "v1"), FolderHub(hub), licence="mit")
    second = push(folder, Name(NAME), FolderHub(hub), licence="mit")
    assert second != first
    assert "Another word." in (pull(Name(NAME), FolderHub(hub)) / "README.md").read_text()
    assert "Another word." not in (pull(Name(NAME, "v1"), FolderHub(hub)) / "README.md").read_text()
    assert "Another word." not in (pull(Name(NAME, first), FolderHub(hub)) / "README.md").read_text()
    assert not list(hub.glob("**/*.part"))


def test_what_came_back_goes_up_again(folder: Path, hub: Path, tmp_path: Path) -> None:
    out = results(tmp_path / "measured", folder)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [speech]\n---\n\n# Mine\n\nA word.\n")
    first = push(folder, Name(NAME), FolderHub(hub), evaluation=out)
    again = push(pull(Name(NAME), FolderHub(hub)), Name(NAME), FolderHub(hub))
    assert again == first  # card and figures were in the folder, and are not doubled
    head, body = split_card((hub / NAME / first / "README.md").read_text())
    assert head["tags"] == ["speech"] and body.startswith("# Mine\n\nA word.\n\n## Measured\n")


def test_command_line(folder: Path, hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(folder), f"{NAME}@v1", "--licence", "mit", "--hub", str(hub)]) == 0
    pinned = capsys.readouterr().out.split()[-1]
    assert main(["pull", pinned, "--hub", str(hub), "--out", str(tmp_path / "mine")]) == 0
    assert pinned in capsys.readouterr().out
    assert TTS.load(tmp_path / "mine").model.folder == tmp_path / "mine"
    for words, told in (
        (["pull", NAME, "--hub", str(hub), "--out", str(tmp_path / "mine")], "exists already"),
        (["pull", "tiny", "--hub", str(hub)], "is no name on a hub; give owner/model"),
        (["push", str(folder), f"{NAME}@a/b", "--licence", "mit", "--hub", str(hub)], "is no tag"),
        (["pull", NAME, "--hub", str(tmp_path / "nowhere")], "no such folder to act as a hub"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and told in error and error.count("\n") == 1


# ------------------------------------------------------------------------------------------- what is not right


def test_what_does_not_go_up(folder: Path, hub: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without a licence; give one"):
        push(folder, Name(NAME), FolderHub(hub))
    other = results(tmp_path / "other", EMBEDDED)
    with pytest.raises(UserError, match=r"measured on a model .* measure this one"):
        push(folder, Name(NAME), FolderHub(hub), licence="mit", evaluation=other)
    with pytest.raises(UserError, match="no evaluation of text and prompt"):
        push(folder, Name(NAME), FolderHub(hub), licence="mit", evaluation=folder)
    write_adapter(tmp_path / "tuned", folder, {})
    with pytest.raises(UserError, match=r"an adapter of .*, which nobody else has"):
        push(tmp_path / "tuned", Name(NAME), FolderHub(hub), licence="mit")
    (folder / "README.md").write_text("---\n[\n---\nx")
    with pytest.raises(UserError, match=r"the head of README\.md is no YAML"):
        push(folder, Name(NAME), FolderHub(hub), licence="mit")
    (folder / "lm.safetensors").unlink()
    with pytest.raises(UserError, match="lm missing"):
        push(folder, Name(NAME), FolderHub(hub), licence="mit")
    assert not list(hub.iterdir())


def test_models_and_revisions_that_are_not_there(folder: Path, hub: Path) -> None:
    push(folder, Name(NAME, "v1"), FolderHub(hub), licence="mit")
    with pytest.raises(UserError, match="has no model ann/other; it has ann/tiny"):
        TTS.load("ann/other", hub=hub)
    with pytest.raises(UserError, match="ann/tiny has no revision 'v2'; give main, v1"):
        TTS.load(f"{NAME}@v2", hub=hub)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda f: (f / "lm.safetensors").write_bytes(b"else"),
            "lm.safetensors in .* is not what was pushed",
        ),
        (lambda f: (f / "reading.json").unlink(), "reading.json is missing"),
        (lambda f: (f / "adapter.safetensors").touch(), "adapter.safetensors in .* has no checksum"),
        (lambda f: (f / "SHA256SUMS").unlink(), "has no revision|has no SHA256SUMS"),
        (lambda f: (f / "SHA256SUMS").write_text("x"), "SHA256SUMS is broken"),
        (lambda f: (f / "SHA256SUMS").write_text("0" * 64 + "  ../../x"), "SHA256SUMS is broken"),
    ],
)
def test_what_was_changed_on_the_way_is_refused(folder: Path, hub: Path, spoil: Any, told: str) -> None:
    revision = push(folder, Name(NAME), FolderHub(hub), licence="mit")
    spoil(hub / NAME / revision)
    with pytest.raises(UserError, match=told):
        TTS.load(NAME, hub=hub)


def test_a_path_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/mine", "./mine", "/nowhere/mine", "runs/mine/model", Path("ann/tiny"), "mine"):
        assert located(path, hub=tmp_path) == Path(path)
    with pytest.raises(UserError, match="no such model folder"):
        TTS.load("runs/mine")
    with pytest.raises(UserError, match="has no model ann/tiny"):
        located("ann/tiny", hub=tmp_path)


# --------------------------------------------------------------------------------------- the Hugging Face hub

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The few answers of the Hugging Face hub that fetching a model needs; one model, one commit."""
    (folder / "notes.txt").unlink()
    write_sums(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files = sorted(path for path in folder.iterdir() if path.is_file())
            if f"/api/models/{NAME}/revision/" in self.path:
                revision = self.path.split("/revision/")[1].split("?")[0]
                if revision not in ("main", "v1", COMMIT):
                    return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                siblings = [{"rfilename": path.name} for path in files]
                return self.answer(
                    200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode()
                )
            if f"/api/models/{NAME}/tree/" in self.path:
                tree = [
                    {
                        "type": "file",
                        "path": p.name,
                        "size": p.stat().st_size,
                        "oid": hashlib.sha1(p.read_bytes()).hexdigest(),
                    }
                    for p in files
                ]
                return self.answer(200, json.dumps(tree).encode())
            if f"/{NAME}/resolve/" in self.path:
                data = (folder / self.path.rsplit("/", 1)[1]).read_bytes()
                tag = hashlib.sha1(data).hexdigest()
                return self.answer(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET  # noqa: N815

        def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def api_of(endpoint: str, cache: Path) -> Any:
    """The library's own client, with a cache of this test's."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    api = huggingface_hub.HfApi(endpoint=endpoint, token=False)
    whole = api.snapshot_download
    api.snapshot_download = lambda name, **given: whole(name, cache_dir=cache, **given)
    return api


def test_fetched_once_it_is_there_offline(server: str, folder: Path, tmp_path: Path) -> None:
    found = located(f"{NAME}@v1", HuggingFaceHub(api_of(server, tmp_path / "cache")))
    assert found.name == COMMIT
    assert (found / "lm.safetensors").read_bytes() == (folder / "lm.safetensors").read_bytes()
    offline = HuggingFaceHub(api_of("http://127.0.0.1:9", tmp_path / "cache"))
    assert located(f"{NAME}@v1", offline) == located(f"{NAME}@{COMMIT}", offline) == found
    with pytest.raises(UserError, match=r"ann/tiny@v2 is not on this machine yet, and .* cannot be reached"):
        located(f"{NAME}@v2", offline)
    (found / "lm.safetensors").resolve().write_bytes(b"else")
    with pytest.raises(UserError, match="is not what was pushed"):
        located(f"{NAME}@v1", offline)


def test_what_the_hub_does_not_have(server: str, tmp_path: Path) -> None:
    hub = HuggingFaceHub(api_of(server, tmp_path / "cache"))
    with pytest.raises(UserError, match="ann/tiny has no revision 'v9' on the Hugging Face hub"):
        located(f"{NAME}@v9", hub)
    with pytest.raises(UserError, match="has no model ann/none that you may see"):
        located("ann/none", hub)


def test_push_to_the_hugging_face_hub(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    calls: list[tuple[str, Any]] = []

    class Api:
        def create_repo(self, name: str, **given: Any) -> None:
            calls.append(("create", (name, given)))

        def upload_folder(self, *, repo_id: str, folder_path: Path, **given: Any) -> Any:
            verify(folder_path, repo_id)
            calls.append(("upload", sorted(path.name for path in folder_path.iterdir())))
            return type("Commit", (), {"oid": COMMIT})

        def create_tag(self, name: str, **given: Any) -> None:
            calls.append(("tag", given))

    assert push(folder, Name(NAME, "v1"), HuggingFaceHub(Api()), licence="mit", private=True) == COMMIT
    assert calls[0] == ("create", (NAME, {"private": True, "exist_ok": True}))
    assert "SHA256SUMS" in calls[1][1] and "notes.txt" not in calls[1][1]
    assert calls[2] == ("tag", {"tag": "v1", "revision": COMMIT})


def test_push_without_a_way_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Hugging Face hub"):
        push(folder, Name(NAME), HuggingFaceHub(api_of("http://127.0.0.1:9", tmp_path)), licence="mit")
