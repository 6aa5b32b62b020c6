"""What is measured: the shapes, the engines beside us and the targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn
from sparsernn.nn import RaggedLSTM

from . import engines
from .bidaf import bidaf
from .endurance import endurance, start
from .export_c import export_c
from .figure1 import figure1
from .fold import fold
from .graphs import graphs
from .measure import Ceiling, Engine, Ideal, Row, ideal, small_weights, versus
from .memory import memory
from .paper_net import paper_net
from .programs import programs
from .split import split
from .storage import storage
from .tiny import tiny
from .training import training

SHAPES = {"T30 B10": (30, 10), "T100 B1": (100, 1), "step": (1, 1)}


def thinned(model: nn.Module, density: float, blocks: int) -> nn.Module:
    """A copy with that share of weights, in blocks of 16 rows (within a gate) and `blocks` columns; 0: single ones."""
    made = small_weights(nn.LSTM(model.input_size, model.hidden_size))  # type: ignore[arg-type]
    with torch.no_grad():
        for p in (p for p in made.parameters() if p.dim() == 2):
            gates = p.view(4, -1, p.shape[1])
            tall, wide = (16, blocks) if blocks else (1, 1)
            keep = torch.rand(4, -(-gates.shape[1] // tall), -(-p.shape[1] // wide)) < density
            keep = keep.repeat_interleave(tall, 1)[:, : gates.shape[1]].repeat_interleave(wide, 2)[..., : p.shape[1]]
            gates.mul_(keep).mul_(density**-0.5)
    return made


def ours(model: nn.Module, x: Tensor, precision: Any = "float32") -> Engine:
    """Whole sequences; a single step is one of a stream."""
    fast = srn.accelerate(model, precision)
    if len(x) > 1:
        return engines.same(lambda: fast(x)[0])
    stream, step = fast.stream(x.shape[1], x.expand(3, -1, -1).contiguous()), x[0]

    def check() -> Tensor:
        stream.reset()
        return stream.step(step)

    return Engine(lambda: stream.step(step), check)


def torch_engines(model: nn.Module, x: Tensor, target: float | None) -> dict[str, Engine]:
    found = {"torch nn.LSTM": engines.lstm(model, x, target), "torch addmm loop": engines.addmm(model, x, target)}
    if len(x) == 1:
        found["torch LSTMCell"] = engines.cells(model, x, target)
    return found


def compact(ceiling: Ceiling, rounds: int) -> list[Row]:
    """Wen's Penn Treebank net, 2 x 1500 units, against its compact form of 373 and 315."""
    dense = small_weights(nn.LSTM(1500, 1500, 2))
    small = small_weights(RaggedLSTM(1500, [373, 315]))
    rows = []
    for (shape, (steps, batch)), far, near in zip(SHAPES.items(), (18, 28, 12), (0.95, 0.95, 2)):
        x = torch.randn(steps, batch, 1500)
        call, best = ours(small, x), ideal(ceiling, small, x, 4)
        work = f"compact 373/315, {shape}"
        dense_rows = versus(work, call, torch_engines(dense, x, far), best, rounds)
        for row in dense_rows:
            row["against"] += ", dense"
        near_engines = {
            "onnxruntime, same net": engines.onnx(small, x, near),
            **{f"{name}, same net": engine for name, engine in engines.openvino(small, x).items()},
            "torch nn, same net": engines.lstm(small, x),
        }
        rows += dense_rows + versus(work, call, near_engines, best, rounds)
    return rows


def compact8(ceiling: Ceiling, rounds: int) -> list[Row]:
    """The same in int8, against the dense net in float32 and the compact one in onnxruntime's int8."""
    dense = small_weights(nn.LSTM(1500, 1500, 2))
    small = small_weights(RaggedLSTM(1500, [373, 315]))
    rows = []
    for (shape, (steps, batch)), far, near in zip(SHAPES.items(), (58, 110, 60), (0.95, 1.1, 3)):
        x = torch.randn(steps, batch, 1500)
        work, call = f"compact 373/315 int8, {shape}", ours(small, x, "int8")
        best = ideal(ceiling, small, x, 1)
        dense_rows = versus(work, call, torch_engines(dense, x, far), best, rounds)
        for row in dense_rows:
            row["against"] += ", dense"
        near_engines = {
            "onnxruntime int8, same net": engines.onnx(small, x, near, int8=True),
            "dynamic int8 of torch, same net": engines.torch_int8(small, x),
            "torch nn, same net": engines.lstm(small, x),
        }
        rows += dense_rows + versus(work, call, near_engines, best, rounds)
    return rows


def _sparse(
    ceiling: Ceiling, rounds: int, name: str, density: float, blocks: int, targets: Any, precision: Any = "float32"
) -> list[Row]:
    dense = small_weights(nn.LSTM(1500, 1500))
    thin = thinned(dense, density, blocks)
    rows = []
    for (shape, (steps, batch)), (far, near) in zip(SHAPES.items(), targets):
        x = torch.randn(steps, batch, 1500)
        others = torch_engines(thin, x, far)
        others["onnxruntime int8"] = engines.onnx(thin, x, near, int8=True)
        others["dynamic int8 of torch"] = engines.torch_int8(thin, x)
        others |= engines.openvino(thin, x)
        best = ideal(ceiling, thin, x, {"float32": 4.25 if blocks else 5, "bfloat16": 2.25, "int8": 1.06}[precision])
        rows += versus(f"LSTM 1500, {name}, {shape}", ours(thin, x, precision), others, best, rounds)
    return rows


def blocks90(ceiling: Ceiling, rounds: int) -> list[Row]:
    """One LSTM of 1500 units, 16 x 1 blocks, 90% gone."""
    return _sparse(ceiling, rounds, "16x1 blocks 90%", 0.1, 1, ((15, 2.3), (21, 2.1), (20, 3.4)))


def blocks95(ceiling: Ceiling, rounds: int) -> list[Row]:
    """One LSTM of 1500 units, 16 x 1 blocks, 95% gone."""
    return _sparse(ceiling, rounds, "16x1 blocks 95%", 0.05, 1, ((29, 4.4), (40, 4.2), (47, 8)))


def blocks95int8(ceiling: Ceiling, rounds: int) -> list[Row]:
    """One LSTM of 1500 units, 16 x 4 blocks, 95% gone, in int8; the stretch targets."""
    return _sparse(ceiling, rounds, "int8 16x4 blocks 95%", 0.05, 4, ((80, 10), (120, 10), (150, 20)), "int8")


def single95(ceiling: Ceiling, rounds: int) -> list[Row]:
    """One LSTM of 1500 units, single weights, 95% gone, in bfloat16 where that helps; the stretch targets."""
    return _sparse(ceiling, rounds, "single weights 95%", 0.05, 0, ((12, 1.5), (16, 1.5), (20, 3)), "bfloat16")


def product(ceiling: Ceiling, rounds: int) -> list[Row]:
    """The product 6000 x 3000 alone, single weights, 95% gone, 10 inputs."""
    import warnings

    head = nn.Linear(3000, 6000, bias=False)
    with torch.no_grad():
        head.weight.mul_(torch.rand(head.weight.shape) < 0.05)
    fast = srn.accelerate(nn.ModuleDict({"rnn": nn.RNN(1, 1), "head": head}).eval())["head"]
    weight = head.weight.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csr = weight.to_sparse_csr()
    rows = []
    for batch, far, near in ((1, None, None), (10, 13, 1.6), (32, None, None)):
        x = torch.randn(batch, 3000)
        xt = x.t().contiguous()
        others = {
            "torch dense, Wx": engines.same(lambda xt=xt: (weight @ xt).t(), far),
            "torch dense, Linear": engines.same(lambda x=x: head(x), far),
            "MKL CSR": engines.same(lambda xt=xt: (csr @ xt).t(), near),
        }
        best = _product_ideal(ceiling, weight, batch)
        rows += versus(f"6000x3000 95%, B{batch}", engines.same(lambda x=x: fast(x)), others, best, rounds)
    return rows


def _product_ideal(ceiling: Ceiling, weight: Tensor, batch: int) -> Ideal:
    """Each weight is read once, with its place, and with it the inputs of its column, whole vectors of them."""
    count, vectors = int(weight.count_nonzero()), -(-batch // 16)
    inputs = 64 * vectors / ceiling.bandwidth(64 * vectors * weight.shape[1]) if batch > 1 else 0.0
    reading = count * (5 / ceiling.bandwidth(5 * count) + inputs)
    computing = 2.0 * count * 16 * vectors / ceiling.operations if batch > 1 else 2.0 * count / ceiling.operations
    return Ideal(max(reading, computing), "bytes" if reading > computing else "operations")


def streaming(ceiling: Ceiling, rounds: int) -> list[Row]:
    """Small layers step by step, each a stream with its own state."""
    rows = []
    shapes = [(n, "float32") for n in (32, 64, 128, 200)] + [(n, "int8") for n in (128, 200)]
    for hidden, precision in shapes:
        model = small_weights(nn.LSTM(hidden, hidden))
        x = torch.randn(1, 1, hidden)
        others = {
            "onnxruntime": engines.onnx(model, x, 5),
            **engines.openvino(model, x),
            "LSTMCell": engines.cells(model, x, 8),
            "nn.LSTM": engines.lstm(model, x),
        }
        best = ideal(ceiling, model, x, 4 if precision == "float32" else 1)
        rows += versus(f"LSTM {hidden} {precision}, one step", ours(model, x, precision), others, best, rounds)
    return rows


_ALL = (compact, compact8, blocks90, blocks95, blocks95int8, single95, product, streaming, tiny, split, graphs)
WORKS = {
    f.__name__: f
    for f in (*_ALL, programs, figure1, training, paper_net, bidaf, endurance, start, memory, storage, fold, export_c)
}
