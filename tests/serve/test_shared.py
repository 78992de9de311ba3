"""Voices of one folder, as two servers see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tts import TTS
from tts.serve.schema import ApiError
from tts.serve.shared import SharedVoices


@pytest.fixture
def two(spoken_model: Path, tmp_path: Path) -> tuple[SharedVoices, SharedVoices]:
    tts = TTS.load(spoken_model)
    return SharedVoices(tts, tmp_path / "voices"), SharedVoices(tts, tmp_path / "voices")


def names(store: SharedVoices) -> list[str]:
    return [one.id for one in store.all()]


def test_what_one_takes_and_deletes_the_other_knows(
    two: tuple[SharedVoices, SharedVoices], speech_file: Path
) -> None:
    here, there = two
    made = here.add(speech_file.read_bytes(), "me")
    assert there.get(made.id).info.model_dump(exclude={"created_at"}) == made.model_dump(
        exclude={"created_at"}
    )
    assert there.saved(made.id) == here.saved(made.id)
    assert names(here) == names(there) == ["ann", "bob", made.id]
    there.remove(made.id)
    assert names(here) == ["ann", "bob"]
    with pytest.raises(ApiError, match=f"no voice '{made.id}'"):
        here.get(made.id)


def test_the_number_is_of_all_together(two: tuple[SharedVoices, SharedVoices], speech_file: Path) -> None:
    here, there = two
    here.most = there.most = 1
    here.add(speech_file.read_bytes(), "me")
    with pytest.raises(ApiError, match="there are 1 uploaded voices already"):
        there.add(speech_file.read_bytes(), "me")


def test_a_broken_file_is_left_out(
    two: tuple[SharedVoices, SharedVoices], caplog: pytest.LogCaptureFixture
) -> None:
    here, _ = two
    assert here.folder is not None
    (here.folder / f"voice_{'0' * 16}.safetensors").write_bytes(b"no voice")
    assert names(here) == ["ann", "bob"]
    assert "a shared voice is left out" in caplog.text


def test_without_a_folder_nothing_is_taken(spoken_model: Path, speech_file: Path) -> None:
    store = SharedVoices(TTS.load(spoken_model), None)
    with pytest.raises(ApiError, match="keeps no voices") as refused:
        store.add(speech_file.read_bytes(), "me")
    assert refused.value.status_code == 403
    assert names(store) == ["ann", "bob"]
