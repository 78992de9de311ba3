"""What the README tells people to type works, with the model that ships."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tts.checkpoint import EMBEDDED

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """What stands in the fenced blocks of one language; "" is none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def marked(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert found is not None, f"README.md has no block marked {mark}"
    return found[1]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with the recordings that the README speaks of, and the repository's files in reach."""
    wav, rate = soundfile.read(EMBEDDED / "prompt.flac")
    for name in ("me.wav", "you.wav", "me.flac"):
        soundfile.write(tmp_path / name, wav, rate)
    for name in ("infer.py", "tts", "codec"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(command: str, folder: Path) -> str:
    """Run a line of the README with this interpreter in place of the environment's."""
    command = command.replace(".venv/bin/python", shlex.quote(sys.executable))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_one_line_that_speaks(recordings: Path) -> None:
    command = marked("speak").split("&&")[-1].strip()
    printed = run(command, recordings)
    info = soundfile.info(recordings / "fox.wav")
    assert 1.5 < info.duration < 6.0
    assert "fox.wav" in printed
    assert "than real time" in printed
    assert f"{info.duration:.2f} s" in printed


def test_the_other_lines_that_speak(recordings: Path) -> None:
    block = next(block for block in blocks("sh") if "--convert" in block)
    run(block, recordings)
    assert soundfile.info(recordings / "note.mp3").duration > 1.5
    converted, original = (
        soundfile.info(recordings / name).duration for name in ("me-saying-it.wav", "you.wav")
    )
    assert abs(converted - original) < 0.5


def test_the_python_example(recordings: Path) -> None:
    code = next(block for block in blocks("python") if "synthesize" in block)
    code += "\nassert speech.sample_rate == 24000 and 0.3 < len(speech.wav) / 24000 < 4, len(speech.wav)"
    (recordings / "example.py").write_text(code)
    run(".venv/bin/python example.py", recordings)
    assert (recordings / "me.safetensors").is_file()


def test_commands_for_training_take_the_settings_named() -> None:
    helped = run(".venv/bin/python train.py all --help", ROOT)
    for flag in re.findall(r"train\.py all (.*)", README)[0].split():
        if flag.startswith("--"):
            assert flag in helped
    for path in re.findall(r"configs/[\w/]+\.yaml", README):
        assert (ROOT / path).is_file()


def test_every_path_of_the_tree_exists() -> None:
    tree = next(block for block in blocks("") if "train.py  infer.py" in block)
    for name in ("configs/", "codec/", "tts/", "docs/", "tests/"):
        assert f"\n{name}" in tree or tree.startswith(name)
        assert (ROOT / name).is_dir()
    assert (ROOT / "tts/pretrained/README.md").is_file()
