"""Two replicas behind one port, as `serve run` starts them of the shipped config: one is killed, all else goes on."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
import yaml
from torch import Tensor

from tts import TTS
from tts.pipeline import Settings

pytest.importorskip("ray.serve", reason="needs the extra `ray`")
if not Path("/proc/self/stat").exists():
    pytest.skip("finds its processes in /proc", allow_module_level=True)

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "serve" / "ray.yaml"
TEXTS = (
    "A lone seal sang all night. Nine men ran a mile!",
    "Some rain fell.",
    "Our aim is low, our hills are high.",
)
SLOTS, QUEUE = 3, 1
SERVE = [sys.executable, "-m", "ray.serve.scripts"]


@dataclass
class Cluster:
    """Ray with the server on it."""

    url: str
    process: subprocess.Popen[bytes]
    config: Path
    environment: dict[str, str]

    def resize(self, replicas: int) -> None:
        """Ask for so many replicas."""
        config = yaml.safe_load(self.config.read_text())
        config["applications"][0]["deployments"][0]["num_replicas"] = replicas
        self.config.write_text(yaml.safe_dump(config))
        command = [*SERVE, "run", "--non-blocking", "--address=auto", str(self.config)]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True, capture_output=True, timeout=120)

    def replicas(self) -> set[int]:
        """Processes of replicas: those of Ray's that descend from ours."""
        parents, names = {}, {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    # pid (name, which may hold anything) state parent ...
                    parents[int(folder.name)] = int(
                        (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    )
                    names[int(folder.name)] = (folder / "cmdline").read_bytes()
                except OSError:  # it has just ended
                    continue

        def ours(pid: int) -> bool:
            while pid in parents and pid != self.process.pid:
                pid = parents[pid]
            return pid == self.process.pid

        return {
            pid for pid, name in names.items() if name.startswith(b"ray::ServeReplica:tts:") and ours(pid)
        }


@dataclass
class Outcome:
    """How one request went; times on the monotonic clock."""

    text: str
    began: float
    ended: float
    status: int  # 0: cut off
    data: bytes
    headers: httpx.Headers


def within(seconds: float, done: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if done():
            return True
        time.sleep(0.05)
    return done()


def answers(url: str, replies: int = 1) -> bool:
    try:
        return all(httpx.get(f"{url}/health", timeout=5).status_code == 200 for _ in range(replies))
    except httpx.HTTPError:
        return False


def started(url: str) -> int:
    """When the replica that answers came up: seconds of the wall clock."""
    return int(httpx.get(f"{url}/v1/models", timeout=20).json()["data"][0]["created"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(spoken_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    config = yaml.safe_load(CONFIG.read_text())
    app, port = config["applications"][0], free_port()
    config["http_options"]["port"] = port
    app["args"] |= {
        "model": str(spoken_model),
        "voices": str(folder / "voices"),
        "slots": SLOTS,
        "queue": QUEUE,
        "workers": 1,
    }
    speech = app["deployments"][0]
    del speech["autoscaling_config"]
    speech |= {
        "num_replicas": 2,
        "ray_actor_options": {"num_cpus": 0.5},
        "graceful_shutdown_timeout_s": 10,
    }
    (folder / "ray.yaml").write_text(yaml.safe_dump(config))
    logs = Path(tempfile.mkdtemp(prefix="ray"))  # sockets lie there: pytest's own names are too long for them
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # Ray would write one into the home folder
        "RAY_TMPDIR": str(logs),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 else: behind all that runs beside the tests
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*SERVE, "run", "--address=local", str(folder / "ray.yaml")],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    one = Cluster(f"http://127.0.0.1:{port}", process, folder / "ray.yaml", environment)
    try:
        # a proxy hears of replicas one by one
        up = within(
            240, lambda: process.poll() is not None or (len(one.replicas()) == 2 and answers(one.url, 20))
        )
        assert up and process.poll() is None, (folder / "log").read_text()[-4000:]
        yield one
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(logs, ignore_errors=True)


@pytest.fixture(scope="module")
def alone(spoken_model: Path) -> dict[str, Tensor]:
    """What each text must give."""
    tts = TTS.load(spoken_model)
    voice = tts.voice("ann")
    return {text: torch.cat([one.wav for one in tts.stream(text, voice, Settings())]) for text in TEXTS}


def ask(client: httpx.Client, url: str, text: str, voice: str = "ann") -> Outcome:
    body = {"model": "tiny", "input": text, "voice": voice, "response_format": "pcm"}
    began, status, headers, data = time.monotonic(), 0, httpx.Headers(), b""
    try:
        with client.stream("POST", f"{url}/v1/audio/speech", json=body) as answer:
            headers = answer.headers
            data = b"".join(answer.iter_bytes())
            status = answer.status_code
    except httpx.HTTPError:
        pass
    return Outcome(text, began, time.monotonic(), status, data, headers)


def right(one: Outcome, alone: dict[str, Tensor]) -> bool:
    got, wanted = torch.frombuffer(bytearray(one.data), dtype=torch.int16).float() / 32767, alone[one.text]
    return len(got) == len(wanted) and torch.allclose(got, wanted, atol=5e-4, rtol=1e-3)


def test_only_what_runs_on_a_killed_replica_is_lost(cluster: Cluster, alone: dict[str, Tensor]) -> None:
    outcomes: list[Outcome] = []
    over = threading.Event()

    def load(n: int) -> None:
        with httpx.Client(timeout=60) as client:
            while not over.is_set():
                outcomes.append(ask(client, cluster.url, TEXTS[n % len(TEXTS)]))
                n += 1

    with ThreadPoolExecutor(2 * SLOTS) as pool:
        clients = [pool.submit(load, n) for n in range(2 * SLOTS)]
        try:
            time.sleep(3)
            victim = min(cluster.replicas())
            clock, killed = time.time(), time.monotonic()
            os.kill(victim, signal.SIGKILL)
            back = within(120, lambda: started(cluster.url) > clock)
            answering = time.monotonic() - killed
            time.sleep(2)
        finally:
            over.set()
    for one in clients:
        one.result()
    failed = [one for one in outcomes if one.status != 200]
    wrong = [one for one in outcomes if one.status == 200 and not right(one, alone)]
    print(
        f"{len(outcomes)} requests, {len(outcomes) - len(failed)} answered, {len(failed)} failed "
        f"({sorted(one.status for one in failed)}), {len(wrong)} wrong; a new replica answered "
        f"after {answering:.1f} s"
    )
    assert back and not wrong
    assert len(outcomes) > 4 * SLOTS
    assert len(failed) <= SLOTS + QUEUE
    assert all(one.began < killed < one.ended for one in failed)


def test_a_voice_given_to_one_is_known_to_all(cluster: Cluster, speech_file: Path) -> None:
    url = f"{cluster.url}/v1/audio/voices"
    with httpx.Client(timeout=60) as client:
        form = {
            "files": {"audio_sample": speech_file.read_bytes()},
            "data": {"consent": "mine", "name": "me"},
        }
        made = client.post(url, **form).raise_for_status().json()["id"]
        spoken = [ask(client, cluster.url, "Some rain fell.", made) for _ in range(8)]
        assert [one.status for one in spoken] == [200] * 8
        assert len({one.data for one in spoken}) == 1
        assert client.delete(f"{url}/{made}").status_code == 200
        assert {ask(client, cluster.url, "Some rain fell.", made).status for _ in range(8)} == {404}


def test_too_many_are_told_to_come_again(cluster: Cluster, alone: dict[str, Tensor]) -> None:
    places = (
        2 * (SLOTS + QUEUE)
        + yaml.safe_load(CONFIG.read_text())["applications"][0]["deployments"][0]["max_queued_requests"]
    )
    client = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None))
    with client, ThreadPoolExecutor(places + 24) as pool:
        outcomes = list(pool.map(lambda _: ask(client, cluster.url, "Some rain fell."), range(places + 24)))
    refused = [one for one in outcomes if one.status == 429]
    assert refused
    assert all(one.headers["Retry-After"] == "5" for one in refused)
    rest = [one for one in outcomes if one.status != 429]
    assert all(one.status == 200 and right(one, alone) for one in rest)


def test_clients_that_go_free_their_places(cluster: Cluster) -> None:
    body = {"model": "tiny", "input": "Nine men ran a mile. " * 150, "voice": "ann", "response_format": "pcm"}
    with ExitStack() as stack:
        client, sounds = stack.enter_context(httpx.Client(timeout=60)), []
        for _ in range(2 * SLOTS):
            context = client.stream("POST", f"{cluster.url}/v1/audio/speech", json=body)
            sounds.append(stack.enter_context(context).iter_bytes())
            next(sounds[-1])  # it has begun
        with httpx.Client(timeout=2) as other:
            assert ask(other, cluster.url, TEXTS[0]).status == 0  # nobody has a place for it
    began = time.monotonic()
    with httpx.Client(timeout=60) as client:
        assert ask(client, cluster.url, TEXTS[0]).status == 200
    assert time.monotonic() - began < 20


def test_a_replica_that_has_to_go_ends_what_it_has_begun(cluster: Cluster, alone: dict[str, Tensor]) -> None:
    before = cluster.replicas()
    assert len(before) == 2
    over = threading.Event()

    def load(n: int) -> list[Outcome]:
        outcomes = []
        with httpx.Client(timeout=60) as client:
            while not over.is_set():
                outcomes.append(ask(client, cluster.url, TEXTS[n % len(TEXTS)]))
        return outcomes

    with ThreadPoolExecutor(2 * SLOTS) as pool:
        clients = [pool.submit(load, n) for n in range(2 * SLOTS)]
        try:
            cluster.resize(1)
            assert within(60, lambda: len(cluster.replicas()) == 1)
            time.sleep(1)
        finally:
            over.set()
    outcomes = [one for client in clients for one in client.result()]
    print(f"{len(outcomes)} requests, {sum(one.status != 200 for one in outcomes)} failed")
    assert cluster.replicas() < before
    assert all(one.status == 200 and right(one, alone) for one in outcomes)
