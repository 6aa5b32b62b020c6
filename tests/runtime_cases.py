"""Random cases for the accelerated modules: one number makes model, input, layout and precision, and `check` judges.

The oracle is the model in float64, with the weights rounded where the layout rounds them. All buffers that the kernels
are given stand between guards, which must not change; a read of them as numbers would give NaN.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sparsernn.nn.gated import GatedGRU, GatedLSTM, GatedRNN
from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from sparsernn.nn.rhn import RHN
from sparsernn.runtime import costs, linear, packed_layer, stack, stream, threads
from sparsernn.runtime.compiled import function
from sparsernn.runtime.held import Precision
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.layout import Layout
from sparsernn.runtime.layouts import multiplied, offered

STACKS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
CELLS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}
RAGGED = {"LSTM": RaggedLSTM, "GRU": RaggedGRU, "RNN": RaggedRNN}
GATED = {"LSTM": GatedLSTM, "GRU": GatedGRU, "RNN": GatedRNN}
FORMS = ("stack",) * 5 + ("cell", "ragged", "gated", "highway", "stream", "stream")
GUARD = 64  # numbers on either side of a buffer
CANARY = 0x7FC0DEAD  # a NaN as float32, far outside of everything as an index


class Guards:
    """Buffers between canaries, and how often kernels were called on them."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.whole: list[tuple[Tensor, int, int]] = []
        self.calls = 0

    def counted(self, name: str, arguments: int) -> Callable[..., Any]:
        """Kernel `name`, each of whose calls counts."""
        kernel = function(name, arguments)

        def called(*given: Any) -> Any:
            self.calls += 1
            return kernel(*given)

        return called

    def around(self, value: Tensor) -> Tensor:
        """A contiguous copy of `value` between guards."""
        size = value.numel() * value.element_size()
        words = -(-size // 4)
        # Buffers of numbers begin anywhere; int64 ones at a multiple of 8 bytes.
        before = GUARD + (2 * self.draw.randrange(8) if value.element_size() == 8 else self.draw.randrange(16))
        whole = torch.full((before + words + GUARD,), CANARY, dtype=torch.int32)
        inner = whole[before : before + words].view(torch.uint8)[:size].view(value.dtype).view(value.shape)
        inner.copy_(value)
        self.whole.append((whole, before, words))
        return inner

    def check(self) -> None:
        for whole, before, words in self.whole:
            assert (whole[:before] == CANARY).all() and (whole[before + words :] == CANARY).all(), "a guard was written"


class _Torch:
    """torch, with buffers between guards."""

    def __init__(self, guards: Guards) -> None:
        self.empty = lambda *size, **more: guards.around(torch.empty(*size, **more))
        self.zeros = lambda *size, **more: guards.around(torch.zeros(*size, **more))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def guarded(draw: random.Random) -> Iterator[Guards]:
    """All buffers, outputs and packed matrices that are made inside stand between guards."""
    guards = Guards(draw)
    finish: Callable[..., Any] = Layout.packed
    new_empty = Tensor.new_empty

    def packed(
        own: Layout, values: Tensor, blocks: Tensor, columns: int, arrangement: Any, *rest: Any, **more: Any
    ) -> Any:
        rest = tuple(guards.around(r) if isinstance(r, Tensor) else r for r in rest)
        return finish(own, guards.around(values), blocks, columns, arrangement, *rest, **more)

    with (
        patch.object(packed_layer, "torch", _Torch(guards)),
        patch.object(stack, "torch", _Torch(guards)),
        patch.object(stream, "torch", _Torch(guards)),
        patch.object(linear, "torch", _Torch(guards)),
        patch.object(stack, "function", guards.counted),
        patch.object(stream, "function", guards.counted),
        patch.object(linear, "function", guards.counted),
        patch.object(Layout, "packed", packed),
        patch.object(Tensor, "new_empty", lambda own, *size, **more: guards.around(new_empty(own, *size, **more))),
    ):
        yield guards
    guards.check()


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


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, PackedSequence):
        return PackedSequence(change(value.data), *value[1:])
    return change(value) if isinstance(value, Tensor) else tuple(_each(part, change) for part in value)


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
                state = (_each(model(x)[1], lambda s: torch.randn_like(s)),) if _plain(model) else (model(x)[1],)
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


def _runs(fast: Any, case: Case) -> Callable[[tuple[Any, ...]], Any]:
    """How the case runs: called with its arguments, or step by step."""
    if case.form == "gated":
        return lambda arguments: fast[0](*arguments)
    if case.form != "stream":
        return lambda arguments: fast(*arguments)
    time = 1 - case.batch_axis  # type: ignore[operator]

    def steps(arguments: tuple[Any, ...]) -> Tensor:
        (x,) = arguments
        running = fast.stream(x.shape[case.batch_axis], case.arguments[0])
        return torch.stack([running.step(step).clone() for step in x.unbind(time)], time)

    return steps


def oracle(case: Case, fast: Any) -> tuple[nn.Module, bool]:
    """The model with its matrices rounded as the kernels have them, float32, and whether that is exact."""
    model = copy.deepcopy(case.model[0] if case.form == "gated" else case.model)  # type: ignore[index]
    if case.precision == "int8":  # weights are rounded in every layout, also where products are of float32
        return model, False
    if multiplied(case.precision) == "float32":
        return model, True
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2 and not (case.form == "stream" and name == "front.weight" and embeds(model)):
                p.copy_(p.to(torch.bfloat16).float())
    return model, True


def embeds(model: Any) -> bool:
    return isinstance(model.front, nn.Embedding)


def agree(case: Case, got: Any, fast: Any) -> None:
    """`got` is as near to float64 as torch's float32 is, four times; in int8 near it."""
    model, exact = oracle(case, fast)
    with torch.no_grad():
        plain = flat(_call(model, case.arguments))
        want = flat(_call(copy.deepcopy(model).double(), _each(case.arguments, _double)))
    found = flat(got)
    assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in plain]
    for g, w, p in zip(found, want, plain):
        if g.numel():
            near = 4 * float((p - w).abs().max())
            bound = max(1e-5, near) if exact else 0.1 * max(1.0, float(w.abs().max()))
            off = float((g - w).abs().max())
            assert off <= bound, f"off by {off:.2e}, at most {bound:.2e} is allowed"


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _call(model: Any, arguments: Any) -> Any:
    return model(*arguments)


@contextmanager
def forced(layout: str | None) -> Iterator[None]:
    """Every matrix gets `layout`."""
    if layout is None:
        yield
        return
    by_cost = costs.choose

    def chosen(counts: Any, inputs: int, precision: Precision = "float32", table: Any = None) -> costs.Choice:
        # Int8 streams are judged by a copy in float32, which has layouts of its own.
        return choice(layout) if layout in offered(precision) else by_cost(counts, inputs, precision, table)

    with patch.object(costs, "choose", chosen):
        yield


def choice(layout: str) -> costs.Choice:
    return costs.Choice(layout, 0.0)


@torch.no_grad()
def check(seed: int) -> int:
    """Run the case of `seed` and judge it, and count the calls of kernels; an AssertionError names seed and case."""
    case = make(seed)
    try:
        return _check(case, random.Random(seed))
    except Exception as error:
        raise AssertionError(f"case {seed}, {case}: {type(error).__name__}: {error}") from error


def _check(case: Case, draw: random.Random) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no int8 here; projections without oneDNN
        fast = accelerate(case.model, case.precision)
    run = _runs(fast, case)
    with forced(case.layout), guarded(draw) as guards:
        before = [t.clone() for t in flat(case.arguments)]
        got = run(case.arguments)
        assert len(guards.whole) > 2, "no guards were set"
        assert all(torch.equal(a, b) for a, b in zip(before, flat(case.arguments))), "an argument was changed"
        kept = [t.clone() for t in flat(got)]
        if draw.random() < 0.3:
            _same_bits_in_threads(run, case, kept)
        if draw.random() < 0.3 and case.batch_axis is not None and case.arguments[0].is_floating_point():
            _nan_stays_in_its_row(run, case, kept[0], draw)
    agree(case, kept if case.form == "stream" else got, fast)
    assert all(torch.equal(a, b) for a, b in zip(kept, flat(got))), "a later call changed an earlier result"
    if case.form not in ("stream", "gated") and draw.random() < 0.1:
        _nothing(fast, case)
    return guards.calls


def _same_bits_in_threads(run: Callable[[Any], Any], case: Case, kept: list[Tensor]) -> None:
    count = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            with patch.object(threads, "WORTH", 1.0):
                again = flat(run(case.arguments))
            assert all(torch.equal(a, b) for a, b in zip(kept, again)), f"other bits with {number} threads"
    finally:
        torch.set_num_threads(count)


def _nan_stays_in_its_row(run: Callable[[Any], Any], case: Case, kept: Tensor, draw: random.Random) -> None:
    axis: int = case.batch_axis  # type: ignore[assignment]
    x = case.arguments[0].clone()
    row = draw.randrange(x.shape[axis])
    one = x.select(axis, row).view(-1, x.shape[-1]) if x.dim() < 3 else x.select(axis, row)
    bad = draw.choice((float("nan"), float("inf")))
    one[draw.randrange(len(one)), draw.randrange(x.shape[-1])] = bad
    out = flat(run((x, *case.arguments[1:])))[0]
    others = torch.tensor([n for n in range(x.shape[axis]) if n != row], dtype=torch.long)
    where = axis if out.dim() > 1 else 0
    same = torch.equal(out.index_select(where, others), kept.index_select(where, others))
    assert same, "another row of the batch changed"
    if case.full and bad != bad:
        model = case.model
        lost = flat(_call(model, (x, *case.arguments[1:])))[0].isnan()
        assert not out[lost].isfinite().any(), "a NaN was lost"


def _nothing(fast: Any, case: Case) -> None:
    """Batches of none give empty results of torch's shapes, sequences of none are refused."""
    model: Any = case.model
    if case.form == "cell":
        shapes = [[t.shape for t in flat(m(torch.zeros(0, model.input_size)))] for m in (fast, model)]
        assert shapes[0] == shapes[1]
        return
    size = (0, 3) if model.batch_first else (3, 0)
    shapes = [[t.shape for t in flat(m(torch.zeros(*size, model.input_size)))] for m in (fast, model)]
    assert shapes[0] == shapes[1], "an empty batch has other shapes"
    size = (2, 0) if model.batch_first else (0, 2)
    for m in (fast, model):
        try:
            m(torch.zeros(*size, model.input_size))
        except RuntimeError:
            continue
        raise AssertionError("a sequence without steps was taken")


def check_many(first: int, last: int) -> int:
    """The cases of the numbers from `first` to `last` - 1: how many calls of kernels they made."""
    return sum(check(seed) for seed in range(first, last))
