"""How each operation of a step program becomes steps of C."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..runtime.program.program import Operation, View
from .elementwise import CONDITIONS, ELEMENTWISE, larger, power, smaller
from .formulas import exp, log, sigmoid, sqrt, tanh
from .lowering import Lowering, Refused, Rule, rows_of
from .maps import Before, Fold, Map, Operand, along, copy, fill
from .places import Place
from .products import Lookup, Product
from .windows import conv, conv_transpose, pool


def _add(x: Any, y: Any) -> Any:
    return x + y


def elementwise(low: Lowering, o: Operation) -> list[Any]:
    """One map; booleans and integers among floats become floats first."""
    (out,) = map(low.place, o.outputs)
    inputs = [low.operand(v) for v in o.inputs]
    if o.kind == "pow":
        formula = power(inputs[1]) if isinstance(inputs[1], (int, float)) else None
        if formula is None:
            raise Refused(f"C has powers of 0.5, -0.5 and whole numbers up to 16, not of {o.inputs[1]}")
        inputs = inputs[:1]
    elif o.kind in CONDITIONS:
        formula = CONDITIONS[o.kind]
    else:
        formula = ELEMENTWISE[o.kind](**o.options)
    given = [v for v in inputs if not isinstance(v, Place)]
    if len(given) == len(inputs):
        return [fill(float(formula(*map(np.float32, given))), out)]
    steps: list[Any] = []
    floats = out.dtype == "float" or any(isinstance(v, Place) and v.dtype == "float" for v in inputs)
    if floats and o.kind != "copy":
        condition = 1 if o.kind == "where" else 0
        for k, value in enumerate(inputs):
            if isinstance(value, Place) and value.dtype != "float" and k >= condition:
                inputs[k] = moved = low.scratch(*value.shape)
                steps.append(copy(value, moved))
    elif not floats and o.kind not in ("copy", "add", "sub", "mul", *CONDITIONS):
        raise Refused("C has it for floats only")
    return [*steps, Map(o.kind, formula, tuple(inputs), (out,))]


def linear(low: Lowering, o: Operation) -> list[Any]:
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    weight, bias = low.array(o.inputs[1]), low.array(o.inputs[2])
    assert isinstance(x, Place) and weight is not None
    steps, rows = low.rows(x)
    return [*steps, *_affine(low, rows, weight, bias, out)]


def _affine(low: Lowering, x: Place, weight: np.ndarray, bias: np.ndarray | None, out: Place) -> list[Any]:
    """out (..., rows) = bias + x (n, columns) times weight, by way of scratch where the rows of `out` have gaps."""
    target, after = rows_of(out), []
    if target is None:
        copied = low.scratch(*out.shape)
        target, after = rows_of(copied), [copy(copied, out)]
    assert target is not None
    begin = fill(0.0, target) if bias is None else copy(low.table(bias).spread(x.shape[0]), target)
    return [begin, Product(low.matrix(weight, 1, x.shape[0]), x, target), *after]


def recurrent(low: Lowering, o: Operation) -> list[Any]:
    """The products of all gates, then the gates and states in one map."""
    x, *_ = map(low.operand, o.inputs[:1])
    w_ih, w_hh, b_ih, b_hh, w_hr = map(low.array, o.inputs[1:6])
    assert isinstance(x, Place) and w_ih is not None and w_hh is not None
    states = [low.place(v) for v in o.inputs[6:] if isinstance(v, View)]
    outputs = [low.place(v) for v in o.outputs]
    mode = o.options["mode"]
    size, batch = states[-1].shape[-1], x.shape[0]
    gates = len(w_ih) // size
    zeros = np.zeros(len(w_ih), np.float32)
    b_ih, b_hh = (zeros if b is None else b for b in (b_ih, b_hh))
    before, x = low.rows(x)
    more, h = low.rows(states[0])
    steps: list[Any] = [*before, *more]
    if mode == "GRU":
        order = np.r_[2 * size : 3 * size, 0 : 2 * size]  # n, r, z: r and z are then in the middle of both products
        sums = low.scratch(batch, (gates + 1) * size)
        bias = np.r_[b_ih[2 * size :], (b_ih + b_hh)[: 2 * size], b_hh[2 * size :]]
        steps += [copy(low.table(bias).spread(batch), sums)]
        steps += [Product(low.matrix(w_ih[order], 3, batch), x, sums.cut(1, 0, 3 * size))]
        steps += [Product(low.matrix(w_hh, 3, batch), h, sums.cut(1, size, 3 * size))]
        parts = [sums.cut(1, k * size, size) for k in range(gates + 1)]
        return [*steps, Map("gru", _gru, (*parts, states[0]), tuple(outputs))]
    sums = low.scratch(batch, gates * size)
    steps += [copy(low.table(b_ih + b_hh).spread(batch), sums)]
    steps += [Product(low.matrix(w, gates, batch), v, sums) for w, v in ((w_ih, x), (w_hh, h))]
    parts = [sums.cut(1, k * size, size) for k in range(gates)]
    if mode == "LSTM" and w_hr is not None:
        hidden = low.scratch(batch, size)
        steps += [Map("lstm", _lstm, (*parts, states[1]), (hidden, outputs[1]))]
        return [*steps, *_affine(low, hidden, w_hr, None, outputs[0])]
    if mode == "LSTM":
        return [*steps, Map("lstm", _lstm, (*parts, states[1]), tuple(outputs))]
    activation = ELEMENTWISE["tanh" if mode == "RNN_TANH" else "relu"]()
    return [*steps, Map(mode.lower(), activation, tuple(parts), tuple(outputs))]


def _lstm(i: Any, f: Any, g: Any, o: Any, c: Any) -> tuple[Any, Any]:
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)  # before all else: none waits for another
    c = f * c + i * g
    return o * tanh(c), c


def _gru(x_n: Any, r: Any, z: Any, h_n: Any, h: Any) -> Any:
    r, z = sigmoid(r), sigmoid(z)
    n = tanh(x_n + r * h_n)
    return n + z * (h - n)


def lookup(low: Lowering, o: Operation) -> list[Any]:
    tokens, table, out = low.operand(o.inputs[0]), low.operand(o.inputs[1]), low.place(o.outputs[0])
    assert isinstance(tokens, Place) and isinstance(table, Place)
    if table.strides[1] != 1 or out.strides[-1] not in (0, 1):
        raise Refused("the rows of its table or of its output are not contiguous")
    return [Lookup(tokens, table, out)]


def before(low: Lowering, o: Operation) -> list[Any]:
    """What follows on a constant beginning; what that is below step 0 stands in the states already."""
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    if len(o.inputs) < 2 or o.options["until"] <= 0:
        return [copy(x, out)]
    return [Before(x, low.operand(o.inputs[1]), out, o.options["until"], o.clock.first, o.clock.every)]


def push(low: Lowering, o: Operation) -> list[Any]:
    x, ring = low.operand(o.inputs[0]), low.place(o.outputs[0])
    count = ring.shape[0]
    shift = [copy(ring.cut(0, 1, count - 1), ring.cut(0, 0, count - 1))] if count > 1 else []
    return [*shift, copy(x, ring.at(count - 1))]


def choose(low: Lowering, o: Operation) -> list[Any]:
    """`pick`: numbered rows."""
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    assert isinstance(x, Place)
    return [copy(x.at(int(row)), out.at(k)) for k, row in enumerate(o.options["index"])]


def softmax(low: Lowering, o: Operation) -> list[Any]:
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    assert isinstance(x, Place)
    most, total = low.scratch(*x.shape[:-1]), low.scratch(*x.shape[:-1])
    exps = out if o.kind == "softmax" else low.scratch(*x.shape)
    width = x.shape[-1]
    steps = [
        copy(along(x, -1).at(0), most),
        Fold("amax", larger, (along(x, -1),), most),
        Map("exp_less", lambda a, b: exp(a - b), (x, _last(most, width)), (exps,)),
        fill(0.0, total),
        Fold("sum", _add, (along(exps, -1),), total),
    ]
    if o.kind == "softmax":
        return [*steps, Map("div", lambda a, b: a / b, (out, _last(total, width)), (out,))]
    difference = Map("log_less", lambda a, b, c: a - b - log(c), (x, _last(most, width), _last(total, width)), (out,))
    return [*steps, difference]


def _last(place: Place, size: int) -> Place:
    """With one axis more behind, along which nothing changes."""
    return Place(place.array, (*place.shape, size), (*place.strides, 0), place.offset, place.dtype)


REDUCTIONS: Mapping[str, tuple[float | None, Any]] = {
    "sum": (0.0, _add),
    "mean": (0.0, _add),
    "prod": (1.0, lambda a, b: a * b),
    "amax": (None, larger),
    "amin": (None, smaller),
}


def reduction(low: Lowering, o: Operation) -> list[Any]:
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    assert isinstance(x, Place)
    start, formula = REDUCTIONS[o.kind]
    before, folded = _in_front(low, x, o.options["axes"])
    begin = copy(folded.at(0), out) if start is None else fill(start, out)
    steps = [*before, begin, Fold(o.kind, formula, (folded,), out)]
    count = folded.shape[0]
    return [*steps, Map("divided", lambda a: a / float(count), (out,), (out,))] if o.kind == "mean" else steps


def _in_front(low: Lowering, x: Place, axes: int) -> tuple[list[Any], Place]:
    """(last `axes` axes as one, the others): what a fold reads."""
    before, whole = low.merged(x, axes)
    return before, along(whole, -1)


def normalise(low: Lowering, o: Operation) -> list[Any]:
    x, out = low.operand(o.inputs[0]), low.place(o.outputs[0])
    axes, eps, rms = o.options["axes"], o.options["eps"], o.options["rms"]
    eps = float(np.finfo(np.float32).eps) if eps is None else eps
    assert isinstance(x, Place)
    outer, inner = x.shape[: len(x.shape) - axes], x.shape[len(x.shape) - axes :]
    steps: list[Any] = []
    mean, scale = low.scratch(*outer), low.scratch(*outer)
    before, folded = _in_front(low, x, axes)
    count = float(folded.shape[0])
    steps += before
    if rms:
        steps += [fill(0.0, scale), Fold("squares", lambda a, v: a + v * v, (folded,), scale)]
    else:
        spread = Place(mean.array, folded.shape, (0, *mean.strides), mean.offset)
        steps += [fill(0.0, mean), Fold("sum", _add, (folded,), mean)]
        steps += [Map("divided", lambda a: a / count, (mean,), (mean,)), fill(0.0, scale)]
        steps += [Fold("variance", lambda a, v, m: a + (v - m) * (v - m), (folded, spread), scale)]
    steps += [Map("deviation", lambda a: 1.0 / sqrt(a / count + eps), (scale,), (scale,))]
    operands: list[Operand] = [x, _behind(scale, inner)]
    operands += [] if rms else [_behind(mean, inner)]
    weights = [low.operand(v).spread(*outer) for v in o.inputs[1:3] if isinstance(v, View)]  # type: ignore[union-attr]
    weighted, biased = (v is not None for v in o.inputs[1:3])

    def normal(v: Any, s: Any, *others: Any) -> Any:
        rest = list(others)
        y = v * s if rms else (v - rest.pop(0)) * s
        y = y * rest.pop(0) if weighted else y
        return y + rest.pop(0) if biased else y

    return [*steps, Map("normalise", normal, (*operands, *weights), (out,))]


def _behind(place: Place, shape: tuple[int, ...]) -> Place:
    return Place(place.array, (*place.shape, *shape), (*place.strides, *[0] * len(shape)), place.offset, place.dtype)


def matmul(low: Lowering, o: Operation) -> list[Any]:
    """The inner axis one after the other."""
    x, y, out = low.operand(o.inputs[0]), low.operand(o.inputs[1]), low.place(o.outputs[0])
    assert isinstance(x, Place) and isinstance(y, Place)
    left = along(_behind(x, (y.shape[-1],)), -2)  # (k, r, n, m)
    columns = along(y, -2)  # (k, r, m)
    shape, strides = [*columns.shape], [*columns.strides]
    shape.insert(-1, x.shape[-2])
    strides.insert(-1, 0)
    right = Place(y.array, tuple(shape), tuple(strides), y.offset)
    return [fill(0.0, out), Fold("matmul", lambda a, u, v: a + u * v, (left, right), out)]


RULES: dict[str, Rule] = {
    **dict.fromkeys([*ELEMENTWISE, *CONDITIONS, "pow"], elementwise),
    **dict.fromkeys(["softmax", "log_softmax"], softmax),
    **dict.fromkeys(REDUCTIONS, reduction),
    "linear": linear,
    "recurrent": recurrent,
    "lookup": lookup,
    "before": before,
    "push": push,
    "pick": choose,
    "normalise": normalise,
    "matmul": matmul,
    "conv": conv,
    "conv_transpose": conv_transpose,
    **dict.fromkeys(["avg_pool", "max_pool"], pool),
}
