"""Lists of cases: JSON lines and Seed-TTS-eval's meta.lst."""

import json
from pathlib import Path

import pytest

from codec.errors import UserError
from tts.evaluate.cases import Case, read_cases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with recordings to name; nothing here opens them."""
    (tmp_path / "wavs").mkdir()
    for name in ("p.wav", "wavs/p.wav", "wavs/r.wav"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def listed(folder: Path, *lines: object, name: str = "cases.jsonl") -> Path:
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_json_lines(folder: Path) -> None:
    full = {
        "id": "a/1",
        "text": " Good morning. ",
        "prompt": "wavs/p.wav",
        "prompt_text": "Hello.",
        "reference": str(folder / "wavs" / "r.wav"),
        "speaker": "anna",
        "language": "de",
        "more": 3,
    }
    cases = read_cases(listed(folder, full, "", {"text": "Two.", "prompt": "p.wav", "speaker": None}))
    assert cases == [
        Case(
            "a/1",
            "Good morning.",
            folder / "wavs/p.wav",
            "Hello.",
            folder / "wavs/r.wav",
            "anna",
            "de",
        ),
        Case("0003", "Two.", folder / "p.wav"),
    ]
    assert cases[1].language == "en-us"


def test_meta_lst(folder: Path) -> None:
    path = listed(
        folder,
        "one|We say this.|wavs/p.wav|Get the trust fund.",
        "two||wavs/p.wav|Say it | wavs/r.wav\r",
        name="meta.lst",
    )
    assert read_cases(path, language="fr-fr") == [
        Case("one", "Get the trust fund.", folder / "wavs/p.wav", "We say this.", language="fr-fr"),
        Case("two", "Say it", folder / "wavs/p.wav", None, folder / "wavs/r.wav", language="fr-fr"),
    ]


def test_limit_takes_the_first_and_reads_no_further(folder: Path) -> None:
    path = listed(folder, {"text": "One.", "prompt": "p.wav"}, "{broken")
    assert [case.text for case in read_cases(path, limit=1)] == ["One."]
    with pytest.raises(UserError, match="limit 0 is out of range"):
        read_cases(path, limit=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"cases.jsonl:2: not JSON \(Expecting .* at column 2\); mend the line"),
        ("[1]", r"cases.jsonl:2: not a JSON object but '\[1\]'"),
        ({"prompt": "p.wav"}, "cases.jsonl:2: it has no text; give one"),
        ({"text": " ", "prompt": "p.wav"}, "it has no text"),
        ({"text": "Hi."}, "it has no prompt"),
        ({"text": 3, "prompt": "p.wav"}, "text is 3; give a string"),
        ({"text": "Hi.", "prompt": "q.wav"}, "no such recording: .*q.wav; paths are relative to the list"),
        ({"text": "Hi.", "prompt": "p.wav", "reference": "r.wav"}, "no such recording: .*r.wav"),
        ({"text": "Hi.", "prompt": "p.wav", "id": "x"}, "the id 'x' is there already"),
        ({"text": "Hi.", "prompt": "p.wav", "language": "qqq"}, "language 'qqq' is unknown"),
    ],
)
def test_broken_lines(folder: Path, line: object, message: str) -> None:
    path = listed(folder, {"text": "Hi.", "prompt": "p.wav", "id": "x"}, line)
    with pytest.raises(UserError, match=message) as caught:
        read_cases(path)
    assert "\n" not in str(caught.value)


def test_broken_lists(folder: Path) -> None:
    with pytest.raises(UserError, match=r"meta.lst:1: 3 fields, not name\|prompt text\|prompt wav\|text"):
        read_cases(listed(folder, "a|b|c", name="meta.lst"))
    with pytest.raises(UserError, match="no case in it"):
        read_cases(listed(folder, "", name="empty.jsonl"))
    with pytest.raises(UserError, match=r"nowhere\.lst: cannot read the list"):
        read_cases(folder / "nowhere.lst")
    (folder / "latin.lst").write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8 at byte 0"):
        read_cases(folder / "latin.lst")


def test_file_names_are_safe_and_different() -> None:
    stems = [
        Case(name, "Hi.", Path("p.wav")).stem for name in ("a/b", "a b", "a_b", "../a", "x" * 300, "é.1-2")
    ]
    assert len(set(stems)) == 6
    assert stems[2] == "a_b" and stems[5] == "é.1-2"
    assert not any("/" in stem or len(stem) > 90 for stem in stems)


def test_a_digest_changes_with_what_the_sound_depends_on(folder: Path) -> None:
    case = Case("a", "Hi.", folder / "p.wav", reference=folder / "wavs/r.wav")
    plain, with_reference = case.digest(reference=False), case.digest(reference=True)
    assert plain != with_reference
    assert plain == Case("b", "Hi.", folder / "p.wav", speaker="anna").digest(reference=False)
    for other in (
        Case("a", "Ho.", folder / "p.wav"),
        Case("a", "Hi.", folder / "wavs/p.wav"),
        Case("a", "Hi.", folder / "p.wav", "What?"),
        Case("a", "Hi.", folder / "p.wav", language="de"),
    ):
        assert other.digest(reference=False) != plain
    (folder / "wavs/r.wav").write_bytes(b"another")
    assert case.digest(reference=False) == plain and case.digest(reference=True) != with_reference
