"""A corpus as people have it -> a manifest to train from.

Nothing of the corpus is changed or copied: the manifest names its files, and pieces of long ones by time. Only what
lies inside archives (Shar) is written out, beside the manifest.
"""

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from tqdm import tqdm

from codec.audio import RATES, resample, write_whole
from codec.errors import UserError
from tts.data.importers import (
    folder,
    gpt_sovits,
    json_lines,
    kaldi,
    lhotse_cuts,
    libri,
    ljspeech,
    table,
    vctk,
)
from tts.data.importers.entry import Entry, Format, Problem, Source
from tts.data.importers.pauses import RATE, cut_at_pauses, detector, detector_name, read_at
from tts.data.importers.transcribe import Recogniser
from tts.data.manifest import ROUNDED
from tts.data.parallel import ordered_map
from tts.data.prepare import write_cuts
from tts.data.segment import decode
from tts.text import TextError, resolve_language

FORMATS: tuple[Format, ...] = (
    lhotse_cuts.SHAR,
    lhotse_cuts.LHOTSE,
    kaldi.FORMAT,
    vctk.FORMAT,
    libri.LIBRITTS,
    libri.LIBRISPEECH,
    ljspeech.FORMAT,
    table.FORMAT,
    gpt_sovits.FORMAT,
    json_lines.FORMAT,
    folder.FORMAT,
)
"""In the order in which they are tried."""

MIN_SECONDS, MAX_SECONDS = 0.3, 40.0  # as `read_manifest` takes them
_LANGUAGES = {
    "english": "en-us", "chinese": "cmn", "mandarin": "cmn", "cantonese": "yue", "french": "fr-fr", "spanish": "es",
    "portuguese": "pt", "jp": "ja",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How to import.

    Attributes:
        format: its name; None to find out.
        audio: where else to look for recordings.
        language: of what does not say its own.
        speaker: of what does not say its own; the corpus' folder where None.
        ignore_text: as if the corpus had no texts.
        vad: detector for long recordings: "auto", "silero", "energy".
        shortest, longest: seconds; recordings without a text that are longer are cut into such pieces.
        jobs: processes that look at the recordings.
    """

    format: str | None = None
    audio: Path | None = None
    language: str = "en-us"
    speaker: str | None = None
    ignore_text: bool = False
    vad: str = "auto"
    shortest: float = 1.0
    longest: float = 15.0
    jobs: int = 1


class Imported(NamedTuple):
    """What an import came to.

    Attributes:
        format: of the corpus.
        entries: what is in the manifest, with text, speaker, language and, of pieces, offset and duration.
        seconds: of each.
        problems: what is not, and why.
        notes: what was decided for the user, one line each.
    """

    format: str
    entries: list[Entry]
    seconds: list[float]
    problems: list[Problem]
    notes: list[str]


class _Piece(NamedTuple):
    entry: Entry
    seconds: float


def import_corpus(
    path: str | Path,
    out: str | Path,
    options: Options | None = None,
    *,
    recogniser: Recogniser | None = None,
    progress: bool = True,
) -> Imported:
    """Read a corpus of any known format and write its manifest.

    Args:
        path: file or folder.
        out: manifest to write: ``.jsonl`` as `tts.data.manifest` has it, ``.jsonl.gz`` as cuts of Lhotse.
        recogniser: writes missing texts; without one, what has no text is left out.

    Raises:
        UserError: there is nothing of a known format, or nothing usable in it.
    """
    path, out, options = Path(path), Path(out), options or Options()
    language = resolve_language(options.language)
    kind, found = find_format(path, options.format)
    source = Source(found, options.audio, out.with_name(f"{out.name.removesuffix('.gz')}_audio"))
    entries, problems = _split_off(kind.read(source))
    if options.ignore_text:
        entries = [replace(entry, text=None, text_by=None) for entry in entries]
    unsaid = any(entry.language is None for entry in entries)
    corpus = found.resolve() if found.is_dir() else found.resolve().parent
    complete = partial(_complete, language=language, speaker=options.speaker or corpus.name)
    entries, more = _split_off(map(complete, entries))
    problems += more

    look = partial(_look, options=replace(options, vad=detector_name(options.vad)))
    answers = tqdm(
        ordered_map(look, entries, options.jobs),
        desc="recordings",
        total=len(entries),
        unit="file",
        disable=not progress,
    )
    pieces, more = _split_off(one for answer in answers for one in answer)
    problems += more
    pieces, more = _split_off(_once(pieces))
    problems += more
    pieces, more = _split_off(_transcribed(pieces, recogniser, progress))
    problems += more
    entries, notes = _lowered([piece.entry for piece in pieces])
    notes += _notes(entries, options, language if unsaid else None)
    if not entries:
        first = f"; the first of {len(problems)} problems: {problems[0]}" if problems else ""
        raise UserError(f"{path}: nothing in it can be used, read as {kind.name}{first}")
    write_manifest(entries, out)
    return Imported(kind.name, entries, [piece.seconds for piece in pieces], problems, notes)


def find_format(path: Path, name: str | None) -> tuple[Format, Path]:
    """The format of a file or folder, and what of it to read.

    Raises:
        UserError: there is no such path, or it is of no format, or not of the one named.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    names = [one.name for one in FORMATS]
    if name is not None and name not in names:
        raise UserError(f"format {name!r} is unknown; one of {', '.join(names)}")
    for one in FORMATS:
        if name in (None, one.name) and (found := one.find(path)) is not None:
            return one, found
    if name is not None:
        what = next(one.what for one in FORMATS if one.name == name)
        if path.is_file():  # named outright: its lines will say what is wrong with them
            return next(one for one in FORMATS if one.name == name), path
        raise UserError(
            f"{path}: not of the format {name} ({what}); name the file itself, or another --format"
        )
    raise UserError(
        f"{path}: of no known format ({', '.join(names)}); name the file that lists the recordings, or its --format"
    )


def _split_off(results: Iterable[Any]) -> tuple[list[Any], list[Problem]]:
    """Results and problems, apart."""
    good: list[Any] = []
    bad: list[Problem] = []
    for one in results:
        (bad if isinstance(one, Problem) else good).append(one)
    return good, bad


def _complete(entry: Entry, *, language: str, speaker: str) -> Entry | Problem:
    """An entry with speaker and language, both in one spelling."""
    try:
        code = _resolve(entry.language) if entry.language else language
    except TextError as problem:
        return Problem(entry.where, str(problem))
    return replace(entry, language=code, speaker=entry.speaker or speaker)


@functools.cache
def _resolve(language: str) -> str:
    return resolve_language(_LANGUAGES.get(language.strip().lower(), language))


# ---------------------------------------------------------------------------------------------- the recordings


def _look(entry: Entry, *, options: Options) -> list[_Piece | Problem]:
    """Check an entry's recording; cut it where it is long and has no text."""
    try:
        length = _length(entry)
        if entry.text is None and entry.offset is None and length > options.longest:
            return _cut(entry, length, options)
    except (UserError, ValueError) as problem:
        return [Problem(entry.where, str(problem))]
    if MIN_SECONDS <= length <= MAX_SECONDS:
        return [_Piece(entry, length)]
    name = f"{entry.audio} lasts {length:.2f} s"
    if length < MIN_SECONDS:
        return [Problem(entry.where, f"{name}, less than {MIN_SECONDS:g} s")]
    way = "which cannot be cut without knowing when each word is said; leave it, or let a recogniser write new texts"
    text = (
        f"and has one text, {way} (--ignore-text --transcribe MODEL)"
        if entry.text
        else "cut it at a pause first"
    )
    return [Problem(entry.where, f"{name}, more than {MAX_SECONDS:g} s, {text}")]


def _length(entry: Entry) -> float:
    """Seconds of an utterance, by its recording's header. Raises `ValueError` where they cannot be."""
    try:
        info = soundfile.info(str(entry.audio))
    except soundfile.SoundFileError as problem:
        reason = " ".join(str(getattr(problem, "error_string", problem)).split()).rstrip(".")
        raise ValueError(f"{entry.audio} cannot be read as audio ({reason})") from problem
    if not RATES[0] <= info.samplerate <= RATES[1]:
        raise ValueError(f"{entry.audio} has a sample rate of {info.samplerate} Hz")
    if entry.channel is not None and entry.channel >= info.channels:
        raise ValueError(f"{entry.audio} has {info.channels} channels, none with the number {entry.channel}")
    whole = info.frames / info.samplerate
    offset = entry.offset or 0.0
    end = whole if entry.duration is None else offset + entry.duration
    if offset < 0 or end <= offset or end > whole + ROUNDED:
        raise ValueError(
            f"{entry.audio} lasts {whole:.2f} s, there is nothing from {offset:.2f} to {end:.2f} s"
        )
    return float(min(end, whole) - offset)


def _cut(entry: Entry, length: float, options: Options) -> list[_Piece | Problem]:
    spans = detector(options.vad)(read_at(entry.audio, channel=entry.channel))
    pieces, left = cut_at_pauses(spans, length, shortest=options.shortest, longest=options.longest)
    if not spans:
        return [Problem(entry.where, f"nobody is heard speaking in {entry.audio} (by {options.vad})")]
    cut: list[_Piece | Problem] = [
        _Piece(replace(entry, offset=one.start, duration=round(one.seconds, 3)), one.seconds)
        for one in pieces
    ]
    for one in left:
        long = one.seconds > options.longest
        why = f"no pause in {one.seconds:.1f} s" if long else f"only {one.seconds:.1f} s, between long pauses"
        cut.append(
            Problem(entry.where, f"{entry.audio} from {one.start:.2f} to {one.end:.2f} s left out: {why}")
        )
    return cut


def _transcribed(
    pieces: Sequence[_Piece], recogniser: Recogniser | None, progress: bool
) -> Iterator[_Piece | Problem]:
    missing = sum(piece.entry.text is None for piece in pieces)
    with tqdm(
        total=missing, desc="transcripts", unit="utt", disable=not progress or recogniser is None
    ) as bar:
        for piece in pieces:
            if piece.entry.text is not None:
                yield piece
                continue
            yield _heard(piece, recogniser)
            bar.update()


def _heard(piece: _Piece, recogniser: Recogniser | None) -> _Piece | Problem:
    entry = piece.entry
    place = "" if entry.offset is None else f" from {entry.offset:.2f} s on"
    if recogniser is None:
        return Problem(entry.where, f"no text{place}; --transcribe MODEL lets a recogniser write it")
    try:
        wav, rate = decode(entry.audio, entry.offset or 0.0, entry.duration, entry.channel)
    except UserError as problem:
        return Problem(entry.where, str(problem))
    assert entry.language is not None
    text = recogniser(resample(wav, rate, RATE), entry.language).strip()
    if not any(char.isalnum() for char in text):
        return Problem(entry.where, f"{recogniser.name} hears nothing said{place}")
    return piece._replace(entry=replace(entry, text=text, text_by=recogniser.name))


def _once(pieces: Sequence[_Piece]) -> Iterator[_Piece | Problem]:
    """Each piece of a recording once: a manifest with two lines for one is refused."""
    seen: dict[tuple[object, ...], str] = {}
    for piece in pieces:
        entry = piece.entry
        key = (entry.audio.resolve(), entry.offset, entry.duration, entry.channel)
        if key in seen:
            yield Problem(entry.where, f"{entry.audio} is listed in {seen[key]} already")
        else:
            seen[key] = entry.where
            yield piece


# --------------------------------------------------------------------------------------------------- the texts


def _lowered(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Texts on one line; where a corpus is written in capitals, as old ones are, in small letters.

    In capitals, IT and US would be read as letters. Only where nearly all texts are so: one such line may be meant.
    """
    entries = [replace(entry, text=" ".join((entry.text or "").split())) for entry in entries]
    capitals = [_in_capitals(entry.text or "") for entry in entries]
    if sum(capitals) < 0.9 * len(entries) or not any(capitals):
        return entries, []
    lowered = [
        replace(e, text=(e.text or "").lower()) if big else e
        for e, big in zip(entries, capitals, strict=True)
    ]
    return lowered, [f"{sum(capitals)} texts were all in capitals and are now in small letters"]


def _in_capitals(text: str) -> bool:
    return sum(char.isupper() for char in text) > 3 and not any(char.islower() for char in text)


def _notes(entries: Sequence[Entry], options: Options, language: str | None) -> list[str]:
    """What was decided; ``language`` is that of entries that do not say theirs, None where all do."""
    notes = []
    if language is not None:
        notes.append(f"what does not say its language counts as {language}; --language names another")
    if any(entry.offset is not None for entry in entries) and detector_name(options.vad) == "energy":
        notes.append(
            "long recordings were cut by level alone, which takes music and noise for speech; "
            'better with Silero: pip install -e ".[data]"'
        )
    written = Counter(entry.text_by for entry in entries if entry.text_by)
    notes += [f"{count} texts are by {name}, and marked so (text_by)" for name, count in written.items()]
    return notes


# ------------------------------------------------------------------------------------------------ the manifest


def write_manifest(entries: Sequence[Entry], out: Path) -> None:
    """Write entries as JSON lines, or where the name ends in ``.gz`` as Lhotse's cuts.

    Raises:
        UserError: the folder cannot be written to.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".gz":
        write_cuts((_lhotse_cut(entry) for entry in entries), out)
        return
    lines = [json.dumps(line_of(entry, out.parent), ensure_ascii=False) + "\n" for entry in entries]
    write_whole(out, "".join(lines).encode("utf-8"))


def line_of(entry: Entry, folder: Path) -> dict[str, Any]:
    """The fields of an entry's line; its path relative to the manifest's folder where it lies below it."""
    fields: dict[str, Any] = {
        "audio": shown_path(entry.audio, folder),
        "text": entry.text,
        "speaker": entry.speaker,
        "language": entry.language,
        "offset": entry.offset,
        "duration": entry.duration,
        "channel": entry.channel,
        "split": entry.split,
        "text_by": entry.text_by,
    }
    return {name: value for name, value in fields.items() if value is not None}


def shown_path(audio: Path, folder: Path) -> str:
    """Relative where it lies below the folder, so that both can be moved together; else absolute."""
    absolute = Path(os.path.abspath(audio))
    with suppress(ValueError):
        return str(absolute.relative_to(os.path.abspath(folder)))
    return str(absolute)


def _lhotse_cut(entry: Entry) -> MonoCut:
    """As Lhotse keeps it, with an absolute path: it takes others from the working folder."""
    info = soundfile.info(str(entry.audio))
    path = str(Path(os.path.abspath(entry.audio)))
    recording = Recording(
        id=path,
        sources=[AudioSource("file", list(range(info.channels)), path)],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=info.frames / info.samplerate,
    )
    start = entry.offset or 0.0
    duration = min(entry.duration or recording.duration, recording.duration - start)
    name = path if entry.offset is None else f"{path}#{start:.3f}+{duration:.3f}"
    custom = {k: v for k, v in (("split", entry.split), ("text_by", entry.text_by)) if v is not None}
    said = SupervisionSegment(
        id=name,
        recording_id=path,
        start=0.0,
        duration=duration,
        channel=entry.channel or 0,
        text=entry.text,
        language=entry.language,
        speaker=entry.speaker,
        custom=custom or None,
    )
    return MonoCut(name, start, duration, entry.channel or 0, recording=recording, supervisions=[said])
