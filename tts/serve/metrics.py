"""What a server counts, for Prometheus."""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tts.serve.engine import Engine

SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tts_requests", "Requests for speech, by how they ended.", ["outcome"], registry=self.registry
        )
        self.first = Histogram(
            "tts_first_audio_seconds",
            "From the request to its first sound.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.whole = Histogram(
            "tts_request_seconds", "From the request to its end.", buckets=SECONDS, registry=self.registry
        )
        counts = engine.counts
        watched = {
            "tts_active_requests": ("Requests with a slot.", lambda: engine.active),
            "tts_waiting_requests": ("Requests in the queue.", lambda: engine.waiting),
            "tts_audio_seconds": ("Sound made so far.", lambda: counts.seconds),
            "tts_lm_steps": ("Steps of the LM's batch so far.", lambda: counts.lm_steps),
            "tts_lm_rows": ("Rows of all those steps.", lambda: counts.lm_rows),
            "tts_chunks": ("Chunks made so far.", lambda: counts.chunks),
            "tts_chunk_batches": ("Batches that they were made in.", lambda: counts.chunk_batches),
            "tts_memory_bytes": ("Main memory of the process.", resident),
        }
        for name, (text, value) in watched.items():
            Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)


def resident() -> int:
    """Bytes of main memory that this process holds; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
