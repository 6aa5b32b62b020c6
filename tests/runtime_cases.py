"""Random cases for the accelerated modules: one number makes model, input, layout and precision."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sparsernn.nn.gated import GatedGRU, GatedLSTM, GatedRNN
from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from sparsernn.nn.rhn import RHN
from sparsernn.runtime.held import Precision
from sparsernn.runtime.layouts import offered

STACKS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
CELLS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}
RAGGED = {"LSTM": RaggedLSTM, "GRU": RaggedGRU, "RNN": RaggedRNN}
GATED = {"LSTM": GatedLSTM, "GRU": GatedGRU, "RNN": GatedRNN}
FORMS = ("stack",) * 5 + ("cell", "ragged", "gated", "highway", "stream", "stream")


class Chain(nn.Module):
    """Embedding or Linear, a stack, a head: what a stream takes."""

    def __init__(self, rnn: nn.Module, tokens: int, head: int) -> None:
        super().__init__()
        self.front = nn.Embedding(tokens, rnn.input_size) if tokens else nn.Linear(3, rnn.input_size)  # type: ignore[arg-type]
        self.rnn = rnn
        width = getattr(rnn, "proj_size", 0) or rnn.hidden_size
        self.head = nn.Linear(width, head)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.front(x))[0])


@dataclass(frozen=True)
class Case:
    """A model with its arguments and how it is to run."""

    model: nn.Module
    arguments: tuple[Any, ...]
    form: str
    precision: Precision
    layout: str | None  # None: by cost
    full: bool  # every weight is non-zero
    packed: bool
    batch_axis: int | None  # of output and padded input; None without one

    def __str__(self) -> str:
        shapes = [tuple(t.shape) for t in flat(self.arguments)]
        return f"{self.form} {self.model} {shapes} {self.precision} {self.layout}"


def flat(value: Any) -> list[Tensor]:
    """The tensors in a result or in arguments."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in flat(part)]


def each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, PackedSequence):
        return PackedSequence(change(value.data), *value[1:])
    return change(value) if isinstance(value, Tensor) else tuple(each(part, change) for part in value)


def thin(model: nn.Module, draw: random.Random) -> bool:
    """Take weights of a random share away, one by one or in 16x1 blocks, and whole gates; whether all are left."""
    density = draw.choice((0.0, 0.05, draw.random(), draw.random(), 1.0))
    tall = draw.choice((1, 1, 16))
    constant = draw.random() < 0.3
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2:
                keep = torch.rand(-(-p.shape[0] // tall), p.shape[1]) < density
                p *= keep.repeat_interleave(tall, 0)[: p.shape[0]]
            elif draw.random() < 0.2:
                p *= torch.rand(p.shape) < density
            if constant and name.rpartition(".")[2].startswith("weight_ih"):
                own = dict(model.named_parameters())
                hh = own.get(name.replace("weight_ih", "weight_hh"), own.get(name.replace("weight_ih", "weight_hh_d0")))
                rows = torch.rand(p.shape[0]) < draw.choice((0.3, 0.9))
                p[rows], hh[rows] = 0, 0
    return density == 1.0 and not constant


def _model(draw: random.Random, form: str) -> nn.Module:
    kind = draw.choice(tuple(STACKS))
    inputs, hidden = draw.randint(1, 70), draw.randint(1, 70)
    options: dict[str, Any] = {"bias": draw.random() < 0.7}
    if kind == "RNN":
        options["nonlinearity"] = draw.choice(("tanh", "relu"))
    if form == "cell":
        return CELLS[kind](inputs, hidden, **options)
    options["batch_first"] = draw.random() < 0.5
    layers, both = draw.randint(1, 2), form != "stream" and draw.random() < 0.5
    options["bidirectional"] = both
    if form == "highway" or (form == "stream" and draw.random() < 0.2):
        return _highway(draw, form, inputs, hidden, layers, options)
    if form == "ragged":
        widths = [[draw.randint(1, 50) for _ in range(1 + both)] for _ in range(layers)]
        if kind == "LSTM" and draw.random() < 0.3:
            options["proj_sizes"] = [[draw.randint(1, width) for width in row] for row in widths]
        return RAGGED[kind](inputs, widths, **options)
    if kind == "LSTM" and hidden > 1 and draw.random() < 0.3:
        options["proj_size"] = draw.randint(1, hidden - 1)
    model = STACKS[kind](inputs, hidden, layers, **options)
    if form == "stream":
        return Chain(model, draw.choice((0, 11)), draw.randint(1, 40))
    return model


def _highway(
    draw: random.Random, form: str, inputs: int, hidden: int, layers: int, options: dict[str, Any]
) -> nn.Module:
    options.pop("nonlinearity", None)
    depth, start = draw.randint(1, 4), draw.choice((-2.0, 0.0, 1.0))
    sizes: Any = hidden
    if form == "highway" and draw.random() < 0.3:
        sizes = [[draw.randint(1, 50) for _ in range(1 + options["bidirectional"])] for _ in range(layers)]
    model = RHN(inputs, sizes, depth, layers, transform_bias=start, **options)
    return Chain(model, draw.choice((0, 11)), draw.randint(1, 40)) if form == "stream" else model


def _input(draw: random.Random, *shape: int) -> Tensor:
    """Random numbers, between NaN, with strides of their own."""
    wide = torch.full((*shape[:-1], shape[-1] + 5), float("nan"))
    begin = draw.randrange(6)
    x = wide[..., begin : begin + shape[-1]]
    x.normal_()
    return x if draw.random() < 0.7 else x.contiguous()


def make(seed: int) -> Case:
    """The case of a number."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    form = draw.choice(FORMS)
    model = _model(draw, form).eval()
    full = thin(model, draw)
    precision = draw.choice(("float32", "float32", "bfloat16", "int8"))
    layout = draw.choice((None, None, *offered(precision)))
    steps, batch = draw.randint(1, 12), draw.randint(1, 20)
    packing = draw.choice(("padded", "padded", "packed", "unbatched"))
    if form == "cell":
        shape = () if packing == "unbatched" else (batch,)
        x = _input(draw, *shape, model.input_size)  # type: ignore[arg-type]
        state = _states(model, draw, lambda width: torch.randn(*shape, width))
        return Case(model, (x, *state), form, precision, layout, full, False, 0 if shape else None)
    if form == "stream":
        first = model.rnn.batch_first  # type: ignore[union-attr]
        shape = (batch, steps) if first else (steps, batch)
        tokens = isinstance(model.front, nn.Embedding)
        x = torch.randint(11, shape) if tokens else torch.randn(*shape, 3)
        return Case(model, (x,), form, precision, layout, full, False, 0 if first else 1)
    rnn: Any = model
    axis = 0 if rnn.batch_first else 1
    if packing == "packed":
        lengths, sort = torch.randint(1, steps + 1, (batch,)), draw.random() < 0.3
        padded = _input(draw, *((batch, steps) if rnn.batch_first else (steps, batch)), rnn.input_size)
        lengths = lengths.sort(descending=True).values if sort else lengths
        x = pack_padded_sequence(padded, lengths, batch_first=rnn.batch_first, enforce_sorted=sort)
    elif packing == "unbatched":
        x = _input(draw, steps, rnn.input_size)
    else:
        x = _input(draw, *((batch, steps) if rnn.batch_first else (steps, batch)), rnn.input_size)
    state = ()
    if form in ("ragged", "highway"):
        if draw.random() < 0.5:  # states of the ragged form come out of a run
            with torch.no_grad():
                state = (each(model(x)[1], lambda s: torch.randn_like(s)),) if _plain(model) else (model(x)[1],)
    else:
        size = (rnn.num_layers * (2 if rnn.bidirectional else 1), *(() if packing == "unbatched" else (batch,)))
        state = _states(model, draw, lambda width: torch.randn(*size, width))
    if form == "gated":
        model = nn.Sequential(GATED[type(model).__name__].from_dense(model)).eval()
    return Case(
        model, (x, *state), form, precision, layout, full and form != "gated", packing == "packed",
        axis if packing == "padded" else None,
    )  # fmt: skip


def _plain(model: Any) -> bool:
    """Whether all layers and directions have one width: only then states are tensors."""
    rows = [*model.hidden_sizes, *(model.proj_sizes or ())]
    return len({width for row in rows for width in row}) == 1


def _states(model: Any, draw: random.Random, make_one: Callable[[int], Tensor]) -> tuple[Any, ...]:
    """No state, or a random one."""
    if draw.random() < 0.5:
        return ()
    h = make_one(getattr(model, "proj_size", 0) or model.hidden_size)
    return ((h, make_one(model.hidden_size)),) if "LSTM" in type(model).__name__ else (h,)
