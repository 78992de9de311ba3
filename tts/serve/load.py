"""Load for a server: `python -m tts.serve.load` asks as many clients would, and tells how it went.

Clients either ask again as soon as they have their answer (`--clients`), or come at random at a rate of their own,
whoever still waits (`--rate`). First sound and end are told as percentiles, over what was answered; throughput is
seconds of sound per second, of what came while new requests were made: the end, when fewer and fewer clients are left,
is not part of the load. Memory is what the server says of itself.
"""

import argparse
import http.client
import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tqdm import tqdm

from codec.errors import UserError
from tts.cli import Parser, guarded

TEXTS = {
    "short": "Nine men ran a mile.",
    "medium": "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised.",
    "long": "It rained all night. In the morning the river had risen to the second step of the church, and the "
    "baker carried his bread upstairs. Nobody spoke of leaving. By noon the sun was out, and the children "
    "sailed their shoes down the street.",
}
SHARES = (0.4, 0.4, 0.2)  # of short, medium and long
BYTES = 2 * 24_000  # of a second of sound
WAITS = 5.0  # seconds between two looks at the memory


@dataclass
class Answer:
    """How one request went.

    Attributes:
        status: of HTTP; 0 where the connection broke.
        first, whole: seconds to the first sound, and to the end.
        seconds, in_time: of sound, all of it and what came in time to count.
    """

    status: int
    first: float = 0.0
    whole: float = 0.0
    seconds: float = 0.0
    in_time: float = 0.0
    retry_after: float = 0.0


@dataclass
class Report:
    """All answers of a load, and the server's memory as it went on.

    Attributes:
        asked: seconds that new requests were made for.
        taken: seconds until the last answer.
    """

    asked: float
    answers: list[Answer] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, MiB
    taken: float = 0.0

    @property
    def done(self) -> list[Answer]:
        """What was spoken to its end."""
        return [one for one in self.answers if one.status == 200]

    def lines(self) -> list[str]:
        """The report."""
        done = self.done
        refused = sum(one.status == 429 for one in self.answers)
        failed = len(self.answers) - len(done) - refused
        seconds = sum(one.in_time for one in done)
        rows = [
            f"requests      {len(done)} done, {refused} refused (429), {failed} failed, in {self.taken:.1f} s"
        ]
        if done:
            rows.append(f"first sound   {_percentiles([one.first for one in done])}")
            rows.append(f"whole         {_percentiles([one.whole for one in done])}")
            rows.append(
                f"throughput    {seconds / self.asked:.2f} s of sound a second, "
                f"{60 * len(done) / self.taken:.1f} requests a minute"
            )
        if self.memory:
            shown = self.memory[:: max(1, len(self.memory) // 8)]
            told = ", ".join(f"{mib:.0f} at {at:.0f} s" for at, mib in shown)
            rows.append(f"memory (MiB)  {told}; most {max(mib for _, mib in self.memory):.0f}")
        return rows


def _percentiles(values: Sequence[float]) -> str:
    ordered = sorted(values)
    told = (
        (share, ordered[min(len(ordered) - 1, int(share / 100 * len(ordered)))]) for share in (50, 90, 99)
    )
    return ", ".join(f"p{share} {value:.2f} s" for share, value in told)


class Target:
    """The server that is loaded.

    Args:
        url: where it is.
        key: API key; None for none.
        voice: that is asked for; the first one there is where None.
    """

    def __init__(self, url: str, key: str | None, voice: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise UserError(f"--url {url!r} is no address; give one like http://127.0.0.1:8000")
        self.host, self.port = parts.hostname, parts.port or 80
        self.headers = {"Content-Type": "application/json"}
        if key is not None:
            self.headers["Authorization"] = f"Bearer {key}"
        self.model = str(json.loads(self.get("/v1/models"))["data"][0]["id"])
        self.voice = voice or str(json.loads(self.get("/v1/audio/voices"))["data"][0]["id"])

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=600)

    def get(self, path: str) -> bytes:
        """What is at a path.

        Raises:
            UserError: there is no server, or it refuses.
        """
        connection = self._connect()
        try:
            connection.request("GET", path, headers=self.headers)
            answer = connection.getresponse()
            data = answer.read()
        except OSError as error:
            raise UserError(
                f"no server at {self.host}:{self.port} ({error}); start it, or give --url"
            ) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise UserError(f"{path} answers {answer.status}: {data[:200].decode(errors='replace')}")
        return data

    def memory(self) -> float:
        """MiB that the server holds."""
        lines = self.get("/metrics").decode().splitlines()
        return next((float(x.split()[1]) / 2**20 for x in lines if x.startswith("tts_memory_bytes ")), 0.0)

    def ask(self, text: str, seed: int, until: float = math.inf) -> Answer:
        """One request, heard to its end; what comes after ``until`` (`time.perf_counter`) does not count."""
        body = {
            "model": self.model,
            "voice": self.voice,
            "input": text,
            "seed": seed,
            "response_format": "pcm",
        }
        connection, started = self._connect(), time.perf_counter()
        try:
            connection.request("POST", "/v1/audio/speech", json.dumps(body), self.headers)
            answer = connection.getresponse()
            if answer.status != 200:
                answer.read()
                return Answer(answer.status, retry_after=float(answer.getheader("Retry-After") or 0))
            size, in_time, first = 0, 0, 0.0
            while data := answer.read1(1 << 16):
                now = time.perf_counter()
                first = first or now - started
                size += len(data)
                in_time += len(data) if now < until else 0
            return Answer(200, first, time.perf_counter() - started, size / BYTES, in_time / BYTES)
        except (OSError, http.client.HTTPException):
            return Answer(0)
        finally:
            connection.close()


def load(
    target: Target,
    *,
    clients: int,
    seconds: float,
    rate: float | None = None,
    texts: Sequence[str] = tuple(TEXTS),
    patient: bool = True,
) -> Report:
    """Load a server for so many seconds; what is under way then is heard to its end.

    Args:
        target: the server.
        clients: that ask one request after another; with a rate, the most that may be under way.
        seconds: how long new requests are made.
        rate: requests a second, at random (Poisson); None for clients that ask as soon as they have heard all.
        texts: which lengths are asked for.
        patient: whether who is refused waits as long as the server says.
    """
    report, started = Report(seconds), time.perf_counter()
    until = started + seconds
    draw, lock = random.Random(0), threading.Lock()
    shares = [dict(zip(TEXTS, SHARES, strict=True))[name] for name in texts]
    bar = tqdm(desc=f"{clients} clients", unit="request", file=sys.stderr, leave=False)

    def one() -> None:
        with lock:
            text, seed = TEXTS[draw.choices(list(texts), shares)[0]], draw.randrange(2**31)
        answer = target.ask(text, seed, until)
        with lock:
            report.answers.append(answer)
            bar.update()
        if answer.status == 429 and patient:
            time.sleep(min(answer.retry_after, max(0.0, until - time.perf_counter())))

    def client() -> None:
        while time.perf_counter() < until:
            one()

    def arrivals() -> None:
        assert rate is not None
        running: list[threading.Thread] = []
        while time.perf_counter() < until:
            time.sleep(draw.expovariate(rate))
            running = [thread for thread in running if thread.is_alive()]
            if len(running) < clients:
                running.append(threading.Thread(target=one))
                running[-1].start()
        for thread in running:
            thread.join()

    work: list[Callable[[], None]] = [client] * clients if rate is None else [arrivals]
    threads = [threading.Thread(target=target_) for target_ in work]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        report.memory.append((time.perf_counter() - started, target.memory()))
        wait = time.perf_counter() + WAITS
        for thread in threads:
            thread.join(max(0.0, wait - time.perf_counter()))
    bar.close()
    report.taken = time.perf_counter() - started
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Load a server; the exit status is as `tts.cli`'s."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m tts.serve.load", description="Load a speech server.", allow_abbrev=False)
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    add("--clients", default="1,8,32", metavar="N,N", help="at once, one load each; default: %(default)s")
    add("--seconds", type=float, default=30, metavar="S", help="of each load; default: %(default)s")
    add("--rate", type=float, metavar="R", help="requests a second at random, in place of clients that wait")
    add("--lengths", default=",".join(TEXTS), metavar="A,B", help="of texts; default: %(default)s")
    add("--voice", help="default: the server's first")
    add("--api-key-file", metavar="FILE", type=argparse.FileType(encoding="utf-8"), help="the server's key")
    return parser


def _run(args: argparse.Namespace) -> None:
    lengths = args.lengths.split(",")
    counts = args.clients.split(",")
    if unknown := [name for name in lengths if name not in TEXTS]:
        raise UserError(f"--lengths {unknown[0]!r} is none of {', '.join(TEXTS)}")
    if not all(count.isdigit() and int(count) for count in counts):
        raise UserError(f"--clients {args.clients!r} is no list of numbers; give one like 1,8,32")
    if args.seconds <= 0 or (args.rate is not None and args.rate <= 0):
        raise UserError("--seconds and --rate must be more than 0")
    key = None if args.api_key_file is None else args.api_key_file.read().strip()
    target = Target(args.url, key, args.voice)
    target.ask(TEXTS["short"], 0)  # takes the voice in
    for count in map(int, counts):
        report = load(target, clients=count, seconds=args.seconds, rate=args.rate, texts=lengths)
        pace = "" if args.rate is None else f", {args.rate:g} requests a second"
        print(f"{count} client{'s' if count > 1 else ''}{pace}", *report.lines(), sep="\n  ", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
