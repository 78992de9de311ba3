"""The load benchmark: what it counts, and what it says where it cannot."""

from __future__ import annotations

import time

import pytest

from codec.errors import UserError
from tests.serve.conftest import Running
from tts.serve.load import Answer, Report, Target, load, main


def test_clients_ask_again_until_the_time_is_over(server: Running) -> None:
    target = Target(server.url, None, "ann")
    report = load(target, clients=2, seconds=1.5, texts=["short"])
    done = report.done
    assert len(done) == len(report.answers) > 2
    assert all(0 < one.first <= one.whole and one.seconds > 0 for one in done)
    assert all(one.in_time <= one.seconds for one in done)
    assert sum(one.in_time for one in done) < sum(one.seconds for one in done)  # the last came late
    assert report.taken > 1.5 and report.memory


def test_who_comes_at_random_waits_for_nobody(server: Running) -> None:
    report = load(Target(server.url, None, None), clients=3, seconds=1.0, rate=6.0, texts=["short"])
    assert report.answers and {one.status for one in report.answers} <= {200, 429}


def test_sound_that_comes_too_late_does_not_count(server: Running) -> None:
    target = Target(server.url, None, "bob")
    late, whole = target.ask("Some rain fell.", 0, time.perf_counter() - 1), target.ask("Some rain fell.", 0)
    assert late.in_time == 0 and late.seconds == whole.seconds == whole.in_time > 0


def test_throughput_is_what_came_in_time_and_refusals_are_no_failures() -> None:
    answers = [Answer(200, 0.1, 1.0, 4.0, 4.0), Answer(200, 0.3, 2.0, 4.0, 2.0), Answer(429), Answer(0)]
    lines = "\n".join(Report(2.0, answers, taken=2.5).lines())
    assert "2 done, 1 refused (429), 1 failed, in 2.5 s" in lines
    assert "3.00 s of sound a second, 48.0 requests a minute" in lines


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--lengths", "tall"], "'tall' is none of short"),
        (["--clients", "two"], "'two' is no list of numbers"),
        (["--seconds", "0"], "more than 0"),
        (["--url", "ftp://x"], "'ftp://x' is no address"),
        (["--url", "http://127.0.0.1:9"], "no server at 127.0.0.1:9"),
    ],
)
def test_what_cannot_be_is_told(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) != 0
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def test_a_voice_that_is_not_there_is_told(server: Running) -> None:
    with pytest.raises(UserError, match="answers 404"):
        Target(server.url, None, None).get("/v1/audio/voices/nobody")
