"""All parts as ONNX graphs with lengths and batches of any size, and a small file of what is no graph.

    tokenizer_encoder.onnx  frames, lens -> tokens
    tokenizer_reader.onnx   tokens, lens -> log_probs
    lm_step.onnx            ids, pads, past -> logits, new
    speaker.onnx            frames, lens -> speaker
    flow_step.onnx          frames, time, tokens, speaker, prompt, past -> velocity, new
    vocoder.onnx            frames -> wav
    chain.json              the grid, the scaling of the frames, the guidance, the sizes of the caches

`tts.export.graphs` tells the shapes, `tts.export.runtime` is a chain of them.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from tqdm import tqdm

from codec.audio import write_whole
from codec.errors import UserError
from codec.vocoders.harmonic import HarmonicVocos
from codec.vocoders.vocos import VocosVocoder
from tts.acoustic.dit import Block
from tts.checkpoint import Model
from tts.export import graphs
from tts.export.note import Note
from tts.text.triphones import CONTEXT

OPSET = 18
CHAIN = "chain.json"


@dataclass(frozen=True)
class Graph:
    """A graph to write.

    Attributes:
        name: of its file.
        part: of the model, that it is of.
        module: what it computes.
        inputs: examples by name, no two of their free sizes alike.
        outputs: their names.
        free: of each input, the dimensions that may have any size.
    """

    name: str
    part: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: Sequence[str]
    free: Sequence[Sequence[int]]


def export_onnx(model: Model, folder: Path, *, int8: bool = False, only: Sequence[str] = ()) -> list[Path]:
    """Write the graphs of a model; returns the files.

    Args:
        model: on the CPU.
        folder: to write into, made where there is none.
        int8: matrices with 8 bits, a scale a column; what they are multiplied with is rounded as it comes.
        only: names of the graphs to write; all by default.

    Raises:
        UserError: the vocoder is not Vocos.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = [graph for graph in graphs_of(model) if not only or graph.name in only]
    paths = []
    for graph in tqdm(made, unit="graph", desc="onnx"):
        path = folder / f"{graph.name}.onnx"
        with TemporaryDirectory() as temporary:
            plain = Path(temporary) / "plain.onnx"
            _export(graph, plain, Note.of(model, graph.part))
            if int8:
                plain = _with_int8(plain, Path(temporary) / "int8.onnx")
            write_whole(path, plain.read_bytes())
        paths.append(path)
    write_whole(folder / CHAIN, (json.dumps(_chain(model), indent=1) + "\n").encode())
    return [*paths, folder / CHAIN]


def graphs_of(model: Model) -> Iterator[Graph]:
    """What can be written of a model."""
    spec, tokenizer, acoustic, llama = model.spec, model.tokenizer, model.acoustic, model.lm.llama
    per, dim, codes = spec.frames_per_token, spec.frames.dim, spec.codes
    b, n, s = 2, 5, 7
    tokens, lens = torch.arange(b * n).view(b, n) % codes, torch.tensor([n, n - 1])
    frames = torch.randn(b, n * per, dim)
    yield Graph(
        "tokenizer_encoder",
        "tokenizer",
        graphs.TokenizerEncoder(tokenizer),
        {"frames": frames, "lens": lens * per},
        ["tokens"],
        [(0, 1), (0,)],
    )
    yield Graph(
        "tokenizer_reader",
        "tokenizer",
        graphs.TokenizerReader(tokenizer),
        {"tokens": tokens, "lens": lens},
        ["log_probs"],
        [(0, 1), (0,)],
    )
    past = torch.randn(s, *_cache_of_lm(model)[:2], b, *_cache_of_lm(model)[2:])
    yield Graph(
        "lm_step",
        "lm",
        graphs.LmStep(llama),
        {"ids": tokens, "pads": torch.tensor([0, 3]), "past": past},
        ["logits", "new"],
        [(0, 1), (0,), (0, 3)],
    )
    yield Graph(
        "speaker",
        "acoustic",
        graphs.Speaker(acoustic),
        {"frames": frames, "lens": lens * per},
        ["speaker"],
        [(0, 1), (0,)],
    )
    past = torch.randn(s, *_cache_of_flow(model)[:2], b, *_cache_of_flow(model)[2:])
    step = {
        "frames": frames,
        "time": torch.tensor([0.25, 0.5]),
        "tokens": torch.cat([tokens[..., None], torch.randint(-1, 9, (b, n, CONTEXT))], dim=-1),
        "speaker": torch.randn(b, len(acoustic.dit.no_speaker)),
        "prompt": torch.zeros(b, n, dtype=torch.bool),
        "past": past,
    }
    free = [(0, 1), (0,), (0, 1), (0,), (0, 1), (0, 3)]
    yield Graph("flow_step", "acoustic", graphs.FlowStep(acoustic), step, ["velocity", "new"], free)
    if not isinstance(model.vocoder, VocosVocoder):
        raise UserError(
            f"{model.folder}: its vocoder {type(model.vocoder).__name__} has no ONNX graph; only Vocos has"
        )
    of_vocoder = graphs.HarmonicVocoder if isinstance(model.vocoder, HarmonicVocos) else graphs.Vocoder
    yield Graph("vocoder", "vocoder", of_vocoder(model.vocoder), {"frames": frames}, ["wav"], [(0, 1)])


def _cache_of_lm(model: Model) -> list[int]:
    config = model.lm.llama.config
    return [
        config.num_hidden_layers,
        2,
        config.num_key_value_heads,
        config.hidden_size // config.num_attention_heads,
    ]


def _cache_of_flow(model: Model) -> list[int]:
    dit = model.acoustic.dit
    first = dit.blocks[0]
    assert isinstance(first, Block)
    return [len(dit.blocks), 2, first.attention.kv_heads, first.attention.head_dim]


def _chain(model: Model) -> dict[str, object]:
    """What a chain needs to know beside its graphs."""
    acoustic = model.acoustic
    return {
        "spec": asdict(model.spec),
        "mean": acoustic.mean.tolist(),
        "std": acoustic.std.tolist(),
        "no_speaker": acoustic.dit.no_speaker.tolist(),
        "steps": acoustic.steps,
        "guidance": acoustic.guidance,
        "cache": {"lm_step": _cache_of_lm(model), "flow_step": _cache_of_flow(model)},
        "symbols": model.symbols.to_list(),
        "tokenizer": model.tokenizer_id,
    }


def _export(graph: Graph, path: Path, note: Note) -> None:
    free = tuple(dict.fromkeys(dims, torch.export.Dim.AUTO) for dims in graph.free)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=free,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["tts"] = note.text()
    program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells of libraries that are not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _with_int8(plain: Path, path: Path) -> Path:
    """A graph whose matrices have 8 bits."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(plain)
    del graph.graph.value_info[:]  # shapes inside, which matrices laid otherwise would contradict
    with _quiet():
        quantize_dynamic(
            graph,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": 1},  # where it cannot tell a type: float32
        )
    return path
