"""The application on Ray Serve: replicas on one machine or many, behind one port.

    serve run configs/serve/ray.yaml

A replica is a process with a model, an engine and the application of its own. Ray gives it no more requests than it
has places for and keeps the others in front: those are not lost with a replica that dies, and go to whichever is free
first.
"""

from pathlib import Path

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from tts.pipeline import TTS
from tts.precision import Precision
from tts.serve.app import Options, create_app
from tts.serve.engine import BATCH, Engine
from tts.serve.guard import read_key
from tts.serve.shared import SharedVoices


class Arguments(BaseModel):
    """What the Serve config gives as `args`; as the options of `python -m tts.serve`. Paths are those of the machines
    that replicas run on, from / on."""

    model_config = ConfigDict(extra="forbid")

    model: Path | None = Field(None, description="a trained model's folder; None: the embedded one")
    device: str | None = Field(
        None, description="None: cuda where the replica has a share of a GPU, else cpu"
    )
    precision: Precision = Field("float32", description="flow16 and mixed: faster where bfloat16 is")
    slots: int = Field(8, gt=0, description="requests that a replica works on at once")
    queue: int = Field(2, ge=0, description="requests that wait in a replica, so that no place stays empty")
    workers: int | None = Field(
        None, gt=0, description="threads that make sound; None: the replica's num_cpus"
    )
    batch: int | None = Field(
        None, gt=0, description="chunks made at once; None: 4, on a GPU as many as slots"
    )
    max_chars: int = Field(4096, gt=0, description="of a text")
    max_upload: int = Field(20, gt=0, description="of a recording, MiB")
    timeout: float = Field(300.0, gt=0, description="seconds for a request, from when it is with a replica")
    voices: Path | None = Field(None, description="folder that all replicas reach; None: no uploads")
    api_key_file: Path | None = Field(None, description="holds the key that requests must have")


@serve.ingress()
class Replica:
    """One server among several."""

    def __init__(self, args: Arguments) -> None:
        self.args = args
        self.engine = _engine(args)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application; Ray runs its lifespan, which starts the engine and closes it."""
        args = self.args
        options = Options(
            model="embedded" if args.model is None else args.model.name,
            api_key=None if args.api_key_file is None else read_key(args.api_key_file),
            max_chars=args.max_chars,
            max_upload=args.max_upload * 2**20,
            timeout=args.timeout,
            voices=args.voices,
        )
        return create_app(self.engine, options, SharedVoices(self.engine.tts, args.voices))

    def check_health(self) -> None:
        """Asked by Ray again and again; raises where the replica has to be replaced."""
        if not self.engine.alive:
            raise RuntimeError("a thread of the engine has ended")


def _engine(args: Arguments) -> Engine:
    """The engine on what Ray reserved for this replica."""
    reserved = ray.get_runtime_context().get_assigned_resources()
    device = args.device or ("cuda" if reserved.get("GPU") else "cpu")
    tts = TTS.load(args.model, device=device, precision=args.precision)
    on_cpu = tts.device.type == "cpu"
    return Engine(
        tts,
        slots=args.slots,
        queue=args.queue,
        workers=args.workers or (max(1, int(reserved.get("CPU", 1))) if on_cpu else 1),
        batch=args.batch or (BATCH if on_cpu else args.slots),
    )


def build(args: Arguments) -> Application:
    """What `import_path` of a Serve config names. A replica gets no more requests at once than it has places."""
    deployment = serve.deployment(Replica, name="speech", max_ongoing_requests=args.slots + args.queue)
    return deployment.bind(args)
