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
import time
import warnings
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from codec.errors import UserError
from tts.options import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tts.pipeline import TTS, Progress, Settings, Speech
    from tts.voice import Voice

PROMPT = "prompt.flac"  # a recording in a model folder that lends its voice where none is named
MAX_THREADS = 256
WARNINGS = 5  # sentences that are named


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit status, see above.
    """
    return guarded(lambda: _run(_parser().parse_args(argv)))


def guarded(work: Callable[[], None]) -> int:
    """Do the work of a command line; its errors become one line and the exit status that is returned."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # phonemes on a terminal that has no letters for them
    try:
        with _quiet():
            work()
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
def no_decoder_notes() -> Iterator[None]:
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


OUT = "out.wav"  # where speech goes if nothing else is said


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are as all others': one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
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
    where.add_argument("--out", metavar="FILE", help=f".wav, .flac, .ogg or .mp3; default: {OUT}")
    where.add_argument(
        "--stream",
        nargs="?",
        const="wav",
        choices=("wav", "pcm"),
        help="write to standard output as it is made, as a growing wav or raw 16-bit samples, and no file; "
        "standard input is spoken as it comes",
    )
    where.add_argument(
        "--timestamps",
        metavar="FILE",
        help="when each word and phoneme is said: .json, .srt, .vtt (subtitles) or .TextGrid (Praat)",
    )
    where.add_argument("--force", action="store_true", help="overwrite files that exist")

    how = parser.add_argument_group("how")
    how.add_argument("--speed", type=float, metavar="X", help="0.5 to 2, at the same pitch; default: 1")
    how.add_argument("--seed", type=int, metavar="N", help="same seed, same samples; default: 0")
    how.add_argument(
        "--temperature", type=float, metavar="X", help="0 to 2, how varied the speech is; default: 0.6"
    )
    how.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of the flow's solver; fewer are faster, others than the model's own worse; default: the model's own",
    )
    how.add_argument(
        "--guidance",
        type=float,
        metavar="X",
        help="of the flow; 0 is twice as fast; default: the model's own",
    )
    how.add_argument(
        "--lexicon", metavar="FILE", help="how words are said: a text file of lines word<TAB>IPA"
    )
    how.add_argument(
        "--candidates", type=int, metavar="N", help="write every sentence N times, take the best; default: 4"
    )
    how.add_argument(
        "--retries",
        type=int,
        metavar="N",
        help="write a sentence that reads badly again, at most N times; default: 2",
    )
    how.add_argument(
        "--strict", action="store_true", help="a sentence that still reads badly is an error, not a warning"
    )
    how.add_argument(
        "--model",
        metavar="MODEL",
        help="a model's folder, or its name on the Hugging Face hub, owner/model[@revision]; default: the embedded one",
    )
    how.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")
    how.add_argument(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="mixed is faster where the processor multiplies bfloat16; auto: there; default: %(default)s",
    )
    how.add_argument(
        "--engine",
        default="torch",
        help="what runs the LM: torch, compiled, transformers, onnxruntime:FOLDER, llama.cpp:FILE or a server's "
        "http://.../v1; default: %(default)s",
    )
    how.add_argument("--threads", type=int, metavar="N", help="processor cores to use; default: all")
    return parser


def _run(args: argparse.Namespace) -> None:
    """Check everything that can be checked at once, then load, make, write."""
    if args.voice_text is not None and args.voice is None:
        raise UserError("--voice-text says what the recording of --voice says; give --voice, too")
    if args.list_voices:
        _list_voices(_folder(args))
        return
    _check_combination(args)
    args.out = OUT if args.out is None else args.out
    text = None if args.stream and args.text is None and args.text_file in (None, "-") else _text(args)
    settings = _settings(args, text)
    _check_outputs(args, makes_speech=not args.stream and (text is not None or args.convert is not None))

    from tts.pipeline import TTS

    if args.threads is not None:
        set_threads(args.threads)
    folder = _folder(args)
    name = args.voice if args.voice is not None else _default_voice(folder)
    tts = TTS.load(folder, device=args.device, precision=args.precision, engine=args.engine)
    with no_decoder_notes():
        voice = tts.voice(name, text=args.voice_text, language=args.voice_language or args.language)
    if args.stream:
        _stream(tts, text, voice, settings, args)
        return
    speech = _speech(tts, text, args.convert, voice, settings)
    if speech is not None:
        _write(speech, args)
    if args.save_voice is not None:
        voice = replace(voice, origin=voice.origin or Path(name).name)
        voice.save(args.save_voice, overwrite=args.force)
    _report(args, tts, name, voice, speech)


# ---------------------------------------------------------------------------------------------- what is given


def _check_combination(args: argparse.Namespace) -> None:
    """Raise where options are given that are about a text, and there is none; or that a stream cannot obey."""
    if args.stream:
        excluded = {
            "--convert": args.convert,
            "--save-voice": args.save_voice,
        }
        excluded |= {
            "--candidates": args.candidates,
            "--retries": args.retries,
            "--strict": args.strict or None,
        }
        for name, value in excluded.items():
            if value is not None:
                raise UserError(
                    f"{name} cannot be used with --stream, what is heard is past; leave one of them out"
                )
        if args.out is not None:
            raise UserError(
                "--out cannot be used with --stream, which writes to standard output; leave --out out, and send that "
                f"to the file: > {args.out}"
            )
    if args.convert is None:
        return
    given = {"--timestamps": args.timestamps, "--lexicon": args.lexicon, "--candidates": args.candidates}
    given |= {"--retries": args.retries, "--strict": args.strict or None}
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{name} is about a text, and --convert has none; leave one of them out")


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
        return decoded(path.read_bytes(), repr(args.text_file))
    if args.convert is not None:
        return None
    needed = args.save_voice is None or args.text_file == "-"
    if sys.stdin is None or sys.stdin.isatty():
        if needed:
            raise UserError('no text to speak; give --text "...", --text-file FILE, or pipe a text in')
        return None
    text = decoded(sys.stdin.buffer.read(), "standard input")
    return text if needed or text.strip() else None


def decoded(data: bytes, name: str) -> str:
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
    from tts.text import Frontend, Lexicon, resolve_language

    lexicon = None if args.lexicon is None else Lexicon.load(args.lexicon)
    frontend = Frontend(language=args.language, lexicon=lexicon)
    if args.voice_language is not None:
        resolve_language(args.voice_language)
    if text is not None:
        frontend(text)

    from tts.pipeline import Settings

    names = ("language", "speed", "seed", "temperature", "steps", "guidance", "candidates", "retries")
    given: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return Settings(**given, strict=args.strict, lexicon=lexicon)


def _check_outputs(args: argparse.Namespace, *, makes_speech: bool) -> None:
    """Raise before any work what would keep the files from being written."""
    from codec.audio import check_output
    from tts.timestamps import check_timestamps
    from tts.voice import check_voice_output

    timed = (makes_speech or args.stream) and args.timestamps is not None
    outputs = [Path(args.out)] if makes_speech else []
    outputs += [Path(args.timestamps)] if timed else []
    outputs += [Path(args.save_voice)] if args.save_voice is not None else []
    for path in outputs:
        if path.is_file() and not args.force:
            raise UserError(
                f"{str(path)!r} exists already; choose another name, or overwrite it with --force"
            )
    if makes_speech:
        check_output(args.out, args.force)
    if timed:
        check_timestamps(args.timestamps, args.force)
    if args.save_voice is not None:
        check_voice_output(Path(args.save_voice), args.force)


def set_threads(threads: int) -> None:
    import torch

    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"threads {threads} is out of range; give a whole number from 1 to {MAX_THREADS}")
    torch.set_num_threads(threads)


def _folder(args: argparse.Namespace) -> Path:
    """The model's folder; one of a hub is fetched first.

    Raises:
        UserError: see `tts.hub.located`.
    """
    from tts.checkpoint import EMBEDDED
    from tts.hub.names import located

    return EMBEDDED if args.model is None else located(args.model)


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
        with no_decoder_notes(), _progress("piece") as progress:
            return tts.convert(recording, voice, settings, progress=progress)
    if text is None:
        return None
    with _progress("sentence") as progress:
        return tts.synthesize(text, voice, settings, progress=progress)


def _stream(tts: TTS, text: str | None, voice: Voice, settings: Settings, args: argparse.Namespace) -> None:
    """Write the speech to standard output while it is made, and say on standard error how it went.

    Timestamps are written anew after every sentence, so that who reads along always finds a whole file.
    """
    from tts.streaming import pcm, wav_header
    from tts.timestamps import Cue, write_timestamps

    started, first, samples = time.perf_counter(), 0.0, 0
    rate, out = tts.model.spec.frames.sample_rate, sys.stdout.buffer
    cues: list[Cue] = []
    if args.stream == "wav":
        out.write(wav_header(rate))
    for chunk in tts.stream(_lines() if text is None else text, voice, settings):
        first = first or time.perf_counter() - started
        samples += len(chunk.wav)
        out.write(pcm(chunk.wav))
        out.flush()
        if chunk.done is None:
            continue
        cues.append(chunk.done.cue)
        if args.timestamps is not None:
            write_timestamps(args.timestamps, cues, samples / rate, overwrite=args.force or len(cues) > 1)
        if not chunk.done.quality.ok:
            said, problems = chunk.done.utterance.text, "; ".join(chunk.done.quality.problems)
            print(f"warning: {said!r} may have been said wrongly: {problems}", file=sys.stderr)
    taken = time.perf_counter() - started
    print(f"first sound after {first:.2f} s; {samples / rate:.2f} s, made in {taken:.2f} s", file=sys.stderr)


def _lines() -> Iterator[str]:
    """Standard input, line by line as it comes."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        yield decoded(line, f"line {number} of standard input")


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


def _write(speech: Speech, args: argparse.Namespace) -> None:
    from codec.audio import write_audio
    from tts.timestamps import write_timestamps

    write_audio(args.out, speech.wav, speech.sample_rate, overwrite=args.force)
    if args.timestamps is not None:
        write_timestamps(args.timestamps, speech.cues, speech.duration, overwrite=args.force)
    _warn(speech)


def _warn(speech: Speech) -> None:
    """Name on standard error the sentences that read badly."""
    bad = [(n, one) for n, one in enumerate(speech.sentences, 1) if one.quality and not one.quality.ok]
    for n, one in bad[:WARNINGS]:
        assert one.quality is not None
        text = one.text if len(one.text) <= 60 else one.text[:59] + "…"
        tries = f"after {one.quality.attempts} attempts" if one.quality.attempts > 1 else "at once"
        print(
            f"warning: sentence {n} of {len(speech.sentences)}, {text!r}, may be said wrongly: "
            f"{'; '.join(one.quality.problems)}, {tries}",
            file=sys.stderr,
        )
    if len(bad) > WARNINGS:
        print(f"warning: so may be {len(bad) - WARNINGS} others", file=sys.stderr)


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
        if args.timestamps is not None:
            print(f"wrote  {args.timestamps}: the times of {len(speech.words)} words")
        if quality := speech.quality:
            errors = sum(one.error for one in quality) / len(quality)
            good = sum(one.ok for one in quality)
            again = sum(one.attempts > 1 for one in quality)
            print(
                f"check  {good} of {len(quality)} sentences read well, {errors:.0%} phoneme errors, {again} made again"
            )


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
