"""Command line of the chain: `python infer.py`.

Exit status: 0 done; 2 what was given cannot be used, with one line `error: ...`; 130 interrupted; 141 nobody
reads the output any more. Only argparse is imported before the arguments are read, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from codec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tts.pipeline import TTS, Progress, Settings, Speech
    from tts.voice import Voice

PROMPT = "prompt.flac"  # a recording in a model folder that lends its voice where none is named
MAX_THREADS = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit status, see above.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # phonemes on a terminal that has no letters for them
    try:
        with _quiet():
            _run(_parser().parse_args(argv))
            sys.stdout.flush()
        return 0
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whatever is still buffered must not fail again when Python exits
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a closed folder, a full disk, a name too long
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")


def _fail(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


@contextmanager
def _quiet() -> Iterator[None]:
    """Show what this project has to say, and nothing of its libraries'."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    for ours in ("codec", "tts"):
        logging.getLogger(ours).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _no_decoder_notes() -> Iterator[None]:
    """Keep what the mp3 decoder writes about a file off standard error: it does so below Python."""
    shown = os.dup(2)
    try:
        with open(shown, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False) as ours:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            with redirect_stderr(ours):
                yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are as all others': one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="infer.py",
        description="Speak a text in the voice of a recording.",
        epilog='Example: python infer.py --text "Hello there." --voice me.wav --out hello.mp3',
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to say; by default, what standard input holds")
    one = what.add_mutually_exclusive_group()
    one.add_argument("--text", help="the text, of any length")
    one.add_argument("--text-file", metavar="FILE", help="a text file in UTF-8; - is standard input")
    one.add_argument(
        "--convert", metavar="RECORDING", help="say what this recording says, as it says it, in the voice"
    )
    what.add_argument(
        "--language", default="en-us", help="of the text: en-us, de, fr-fr, cmn ...; default: %(default)s"
    )

    who = parser.add_argument_group("who says it")
    who.add_argument(
        "--voice",
        help="a recording (wav, flac, ogg, mp3; a second or more of one speaker), a saved voice "
        "(.safetensors), or the name of a voice that ships; default: a recording that comes with the model",
    )
    who.add_argument(
        "--voice-text", metavar="TEXT", help="what the recording says; not needed, the model reads it"
    )
    who.add_argument(
        "--voice-language", metavar="LANGUAGE", help="of --voice-text; default: that of the text"
    )
    who.add_argument(
        "--save-voice",
        metavar="FILE",
        help="keep the voice in FILE.safetensors; without a text, do only that",
    )
    who.add_argument(
        "--list-voices", action="store_true", help="list the voices that ship with the model, and exit"
    )

    where = parser.add_argument_group("where to")
    where.add_argument(
        "--out", metavar="FILE", default="out.wav", help=".wav, .flac, .ogg or .mp3; default: %(default)s"
    )
    where.add_argument("--force", action="store_true", help="overwrite files that exist")

    how = parser.add_argument_group("how")
    how.add_argument("--speed", type=float, metavar="X", help="0.5 to 2, at the same pitch; default: 1")
    how.add_argument("--seed", type=int, metavar="N", help="same seed, same samples; default: 0")
    how.add_argument(
        "--temperature", type=float, metavar="X", help="0 to 2, how varied the speech is; default: 0.8"
    )
    how.add_argument(
        "--steps", type=int, metavar="N", help="of the flow's solver; fewer are faster; default: 10"
    )
    how.add_argument(
        "--guidance", type=float, metavar="X", help="of the flow; 0 is twice as fast; default: 2"
    )
    how.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    how.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")
    how.add_argument("--threads", type=int, metavar="N", help="processor cores to use; default: all")
    return parser


def _run(args: argparse.Namespace) -> None:
    """Check everything that can be checked at once, then load, make, write."""
    if args.voice_text is not None and args.voice is None:
        raise UserError("--voice-text says what the recording of --voice says; give --voice, too")
    if args.list_voices:
        _list_voices(_folder(args))
        return
    text = _text(args)
    settings = _settings(args, text)
    _check_outputs(args, makes_speech=text is not None or args.convert is not None)

    from tts.pipeline import TTS

    if args.threads is not None:
        _set_threads(args.threads)
    name = args.voice if args.voice is not None else _default_voice(_folder(args))
    tts = TTS.load(args.model, device=args.device)
    with _no_decoder_notes():
        voice = tts.voice(name, text=args.voice_text, language=args.voice_language or args.language)
    speech = _speech(tts, text, args.convert, voice, settings)
    if speech is not None:
        _write(speech, args.out, args.force)
    if args.save_voice is not None:
        voice = replace(voice, origin=voice.origin or Path(name).name)
        voice.save(args.save_voice, overwrite=args.force)
    _report(args, tts, name, voice, speech)


# ---------------------------------------------------------------------------------------------- what is given


def _text(args: argparse.Namespace) -> str | None:
    """The text to speak; None where there is none to be spoken.

    Raises:
        UserError: there should be one, and is not; or it is no UTF-8.
    """
    if args.text is not None:
        return str(args.text)
    if args.text_file not in (None, "-"):
        path = Path(args.text_file)
        if path.is_dir():
            raise UserError(f"--text-file {args.text_file!r} is a folder; name a text file inside it")
        if not path.exists():
            raise UserError(f"no such text file: {args.text_file!r}; check the path")
        return _decoded(path.read_bytes(), repr(args.text_file))
    if args.convert is not None:
        return None
    needed = args.save_voice is None or args.text_file == "-"
    if sys.stdin is None or sys.stdin.isatty():
        if needed:
            raise UserError('no text to speak; give --text "...", --text-file FILE, or pipe a text in')
        return None
    text = _decoded(sys.stdin.buffer.read(), "standard input")
    return text if needed or text.strip() else None


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not text in UTF-8 (byte 0x{data[error.start]:02x} at {error.start}); save it as UTF-8"
        ) from error


def _settings(args: argparse.Namespace, text: str | None) -> Settings:
    """Settings of the arguments that are given.

    Raises:
        UserError: one of them is out of range, the language is unknown, or the text has nothing to speak.
    """
    from tts.text import Frontend, resolve_language

    frontend = Frontend(language=args.language)
    if args.voice_language is not None:
        resolve_language(args.voice_language)
    if text is not None:
        frontend(text)

    from tts.pipeline import Settings

    names = ("language", "speed", "seed", "temperature", "steps", "guidance")
    given: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return Settings(**given)


def _check_outputs(args: argparse.Namespace, *, makes_speech: bool) -> None:
    """Raise before any work what would keep the files from being written."""
    from codec.audio import check_output
    from tts.voice import check_voice_output

    outputs = [Path(args.out)] if makes_speech else []
    outputs += [Path(args.save_voice)] if args.save_voice is not None else []
    for path in outputs:
        if path.is_file() and not args.force:
            raise UserError(
                f"{str(path)!r} exists already; choose another name, or overwrite it with --force"
            )
    if makes_speech:
        check_output(args.out, args.force)
    if args.save_voice is not None:
        check_voice_output(Path(args.save_voice), args.force)


def _set_threads(threads: int) -> None:
    import torch

    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"threads {threads} is out of range; give a whole number from 1 to {MAX_THREADS}")
    torch.set_num_threads(threads)


def _folder(args: argparse.Namespace) -> Path:
    from tts.checkpoint import EMBEDDED

    return EMBEDDED if args.model is None else Path(args.model)


def _default_voice(folder: Path) -> str:
    """The model's own recording, else its first voice, else the embedded model's recording."""
    from tts.checkpoint import EMBEDDED, voices

    for path in (folder / PROMPT, *voices(folder).values(), EMBEDDED / PROMPT):
        if path.is_file():
            return _shown(path)
    raise UserError(f"{folder}: no voice comes with this model; give a recording with --voice")


def _list_voices(folder: Path) -> None:
    from tts.checkpoint import voices
    from tts.voice import Voice

    rows = [(name, Voice.load(path)) for name, path in voices(folder).items()]
    width = max([4, *(len(name) for name, _ in rows)])
    print(f"{'name':{width}}  seconds  origin")
    for name, voice in rows:
        print(f"{name:{width}}  {voice.seconds:7.1f}  {voice.origin or '-'}")
    with suppress(UserError):
        print(f"without --voice: {_default_voice(folder)}")


# ----------------------------------------------------------------------------------------------- what is made


def _speech(
    tts: TTS, text: str | None, recording: str | None, voice: Voice, settings: Settings
) -> Speech | None:
    if recording is not None:
        with _no_decoder_notes(), _progress("piece") as progress:
            return tts.convert(recording, voice, settings, progress=progress)
    if text is None:
        return None
    with _progress("sentence") as progress:
        return tts.synthesize(text, voice, settings, progress=progress)


@contextmanager
def _progress(unit: str) -> Iterator[Progress]:
    """A progress bar on standard error; for a single sentence, only on a terminal."""
    from tqdm import tqdm

    bars: list[tqdm[NoReturn]] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            stream: TextIO = sys.stderr
            bars.append(tqdm(total=total, unit=unit, file=stream, disable=total == 1 and not stream.isatty()))
        bars[0].update(done - bars[0].n)

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()


def _write(speech: Speech, out: str, force: bool) -> None:
    from codec.audio import write_audio

    write_audio(out, speech.wav, speech.sample_rate, overwrite=force)


def _report(args: argparse.Namespace, tts: TTS, name: str, voice: Voice, speech: Speech | None) -> None:
    """Say what was used and what was made."""
    model = tts.model
    parts = (model.features, model.tokenizer, model.lm, model.acoustic, model.vocoder)
    size = sum(p.numel() for part in parts for p in part.parameters()) / 1e6
    embedded = "" if args.model is not None else ", the embedded one"
    print(f"model  {_shown(model.folder)}{embedded}: {size:.1f} million parameters, on {tts.device}")
    read = "said in it" if args.voice_text is not None else "read in it by the tokenizer"
    if Path(name).suffix == ".safetensors" or not Path(name).is_file():
        read = "phonemes"  # a saved voice does not tell whether they were read or given
    print(f"voice  {name}: {voice.seconds:.2f} s, {read}: {voice.phonemes}")
    if args.save_voice is not None:
        print(f"saved  {args.save_voice}")
    if speech is not None:
        print(f"wrote  {args.out}: {speech.duration:.2f} s, {_pace(speech)}")


def _pace(speech: Speech) -> str:
    """How long the making took, and how that compares with the speech's duration."""
    times = speech.duration / max(speech.seconds_taken, 1e-9)
    compared = f"{times:.1f} times faster" if times >= 1 else f"{1 / times:.1f} times slower"
    return f"made in {speech.seconds_taken:.2f} s, {compared} than real time"


def _shown(path: Path) -> str:
    """A path as short as it can be written from here."""
    with suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd())) or "."
    return str(path)
