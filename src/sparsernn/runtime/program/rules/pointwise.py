"""Operations element by element: sequences of the same rate are brought to the same step first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..eliminate import Rule, Step, joined
from ..program import BOOL, FLOAT, Clock
from ..values import SEQUENCE, Value
from ..windows import delayed

TRUTHS = ("gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not")


def pointwise(
    step: Step, kind: str, operands: Sequence[Any], options: dict[str, Any] | None = None, like: str | None = None
) -> Value:
    """`kind` of values and numbers, broadcast as torch does. like: its kind of numbers, where not the call's."""
    operands = aligned(step, operands)
    values = [v for v in operands if isinstance(v, Value)]
    first = next(v for v in values if v.kind == joined(step, values)[0])
    clock = joined(step, values)[1]
    shapes = step.shapes()
    axis = step.axis()
    for value in values:
        if value.axis is not None and axis is not None and value.axis - step.dim(value) != axis - len(shapes[0]):
            step.fail("combines each step with every other one: read a fixed number of past steps (pad, then unfold).")
    shape = torch.broadcast_shapes(*(step.tensor(v).shape for v in values))
    result = step.call.result
    tensors = [cast(step, v, like_of(step, kind, values, result), shape, clock) for v in operands]
    out = step.build.made(kind, tensors, shape, clock, BOOL if kind in TRUTHS else like or result, **(options or {}))
    lengths = next((v.lengths for v in values if v.axis is not None), (0, 0))
    return Value(first.kind, out, axis, clock, lengths)


def like_of(step: Step, kind: str, values: Sequence[Value], result: Tensor) -> Tensor | None:
    """A tensor of the numbers that the operation computes in; None where it takes each as it is."""
    if kind == "where" or kind.startswith("logical"):
        return None
    if result.is_floating_point() and kind not in TRUTHS:
        return result
    floats = [step.tensor(v) for v in values if step.tensor(v).is_floating_point()]
    return floats[0] if floats else None


def cast(step: Step, operand: Any, like: Tensor | None, shape: Sequence[int], clock: Clock) -> Any:
    """The operand's tensor in the numbers of `like`, shown in `shape`."""
    if not isinstance(operand, Value):
        return float(operand) if operand is not None and not isinstance(operand, bool) else operand
    tensor = step.tensor(operand)
    if like is not None and like.is_floating_point() and not tensor.is_floating_point():
        tensor = step.build.made("copy", (tensor,), tensor.shape, clock, like)
    return tensor.expand(tuple(shape))


def aligned(step: Step, operands: Sequence[Any]) -> list[Any]:
    """The operands, sequences that come earlier delayed until the last one comes."""
    values = [v for v in operands if isinstance(v, Value)]
    if not any(v.kind == SEQUENCE for v in values):
        return list(operands)
    _, clock = joined(step, values)
    return [delayed(step.build, v, clock) if isinstance(v, Value) and v.kind == SEQUENCE else v for v in operands]


def _unary(kind: str, *names: str, **fixed: Any) -> Rule:
    """names: arguments of torch's that are options, "torch's=ours" where they differ."""

    def rule(step: Step) -> Value:
        options = {name.split("=")[-1]: step[name.split("=")[0]] for name in names}
        return pointwise(step, kind, [step["self"]], options | fixed)

    return rule


def _binary(kind: str, first: str = "self", second: str = "other") -> Rule:
    def rule(step: Step) -> Value:
        left, right, alpha = step[first], step[second], step.get("alpha", 1)
        for name, operand in ((first, left), (second, right)):
            if not isinstance(operand, Value) and step.differs(name):
                step.fail("computes with the length of the sequence, which a stream does not have: count by arange.")
        if alpha is not None:
            right = scaled(step, right, alpha)
        mode = step.get("rounding_mode")
        if mode == "trunc":
            step.fail("truncates: round by floor, or write it as torch.trunc of a quotient.")
        return _floored(step) if mode else pointwise(step, kind, [left, right])

    return rule


def scaled(step: Step, value: Any, factor: float) -> Any:
    """`value` times a number, of its own shape."""
    if factor == 1:
        return value
    if not isinstance(value, Value):
        return value * factor
    tensor = step.tensor(value)
    clock = value.clock if value.moves else Clock()
    return value.but(step.build.made("mul", (tensor, float(factor)), tensor.shape, clock, tensor), data=None)


def _of_truths(rule: Rule) -> Rule:
    """&, | and ^ of truth values; of whole numbers they are something else."""
    return lambda step: (
        rule(step)
        if step.call.result.dtype == torch.bool
        else step.fail("works on the bits of numbers: compute with truth values or whole numbers.")
    )


def _composed(function: Callable[[Any, Step], Value]) -> Rule:
    """A rule written with operations of its own: `function` gets a shorthand for pointwise ones."""
    return lambda step: function(partial(_shorthand, step), step)


def _shorthand(step: Step, kind: str, *operands: Any, **options: Any) -> Value:
    return pointwise(step, kind, operands, options)


def _truncated(do: Any, x: Any) -> Value:
    """Towards zero."""
    return do("mul", do("sign", x), do("floor", do("abs", x)))


def _remainder(do: Any, step: Step) -> Value:
    """Of whole numbers: of others the rounding of the quotient would show."""
    x, other = step["self"], step["other"]
    return do("sub", x, do("mul", other, _floored(step)))


def _floored(step: Step) -> Value:
    """The quotient's next whole number below, of whole numbers."""
    if step.call.result.is_floating_point():
        step.fail("is of numbers that are not whole, 1.0 // 0.1 is 9 in torch: write torch.floor(a / b).")
    return pointwise(step, "floor", [pointwise(step, "div", [step["self"], step["other"]], like=FLOAT)])


def _size(step: Step) -> Value:
    return pointwise(step, "abs", [step["self"]], like=FLOAT)


def _numbers_for_nan(do: Any, step: Step) -> Value:
    x, low, high = step["self"], step.get("neginf"), step.get("posinf")
    largest = torch.finfo(torch.float32).max  # a step computes in float32
    least, most = -largest if low is None else low, largest if high is None else high
    x = do("where", do("ne", x, x), step.get("nan") or 0.0, x)
    x = do("where", do("eq", x, math.inf), most, x)
    return do("where", do("eq", x, -math.inf), least, x)


def _clamp(step: Step) -> Value:
    low, high = step.get("min", step.get("min_val")), step.get("max", step.get("max_val"))
    if isinstance(low, Value) or isinstance(high, Value):
        result = step["self"]
        result = pointwise(step, "maximum", [result, low]) if low is not None else result
        return pointwise(step, "minimum", [result, high]) if high is not None else result
    return pointwise(step, "clamp", [step["self"]], {"min": low, "max": high})


def _elu(scale: float, alpha: float | None) -> Rule:
    def rule(step: Step) -> Value:
        options = {"alpha": step["alpha"] if alpha is None else alpha}
        options |= {"scale": step.get("scale", scale), "input_scale": step.get("input_scale", 1)}
        return pointwise(step, "elu", [step["self"]], options)

    return rule


def _celu(step: Step) -> Value:
    alpha = step["alpha"]
    return pointwise(step, "elu", [step["self"]], {"alpha": alpha, "scale": 1.0, "input_scale": 1 / alpha})


def _prelu(step: Step) -> Value:
    x, weight = step["self"], step["weight"]
    slopes = step.tensor(weight)
    dim = step.dim(x)
    if slopes.numel() > 1 and dim > 1:
        slopes = slopes.view(-1, *[1] * (dim - 2))
    return pointwise(step, "prelu", [x, weight.but(slopes)])


def _power(step: Step) -> Value:
    x, exponent = step["self"], step["exponent"]
    if exponent == 2:
        return pointwise(step, "mul", [x, x])
    if exponent == 0.5:
        return pointwise(step, "sqrt", [x])
    return pointwise(step, "pow", [x, exponent])


def _glu(step: Step) -> Value:
    x, dim = step["self"], step["dim"]
    step.kept_apart(x, [dim], "halves")
    left, right = (x.but(half) for half in step.tensor(x).chunk(2, dim))
    return pointwise(step, "mul", [left, pointwise(step, "sigmoid", [right])])


def _masked_fill(step: Step) -> Value:
    return pointwise(step, "where", [step["mask"], step["value"], step["self"]])


def _source(name: str) -> Rule:
    """What an operation in place writes as it is: copy_, fill_."""

    def rule(step: Step) -> Any:
        value = step[name]
        if not isinstance(value, Value):
            return value
        tensor = step.tensor(value)
        target = step.tensor(step["self"])
        if tensor.dtype != target.dtype:
            tensor = step.build.made("copy", (tensor,), tensor.shape, value.clock if value.moves else Clock(), target)
        return value.but(tensor)

    return rule


def _cast(step: Step) -> Value:
    x = step["self"]
    tensor, result = step.tensor(x), step.call.result
    if tensor.is_floating_point() == result.is_floating_point() and (tensor.dtype == torch.bool) == (
        result.dtype == torch.bool
    ):
        return x
    return pointwise(step, "copy", [x])


UNARY = ("relu", "tanh", "sigmoid", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "abs", "neg", "sign",
         "floor", "ceil", "sin", "cos", "erf", "silu", "mish", "hardsigmoid", "hardswish", "log_sigmoid",
         "logical_not")  # fmt: skip
BINARY = (
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "ne",
    "logical_and",
    "logical_or",
)

RULES: dict[str, Rule] = {
    **{name: _unary(name) for name in UNARY},
    **{name: _binary(name) for name in BINARY},
    "absolute": _unary("abs"), "negative": _unary("neg"), "bitwise_not": _of_truths(_unary("logical_not")),
    "round": _unary("round"), "special_expit": _unary("sigmoid"), "positive": lambda step: step["self"],
    "gelu": _unary("gelu", "approximate"), "leaky_relu": _unary("leaky_relu", "negative_slope"),
    "softplus": _unary("softplus", "beta", "threshold"), "hardtanh": _clamp, "clamp": _clamp, "clip": _clamp,
    "relu6": _unary("clamp", min=0.0, max=6.0), "clamp_min": _clamp, "clamp_max": _clamp,
    "elu": _elu(1.0, None), "celu": _celu,
    "selu": _elu(1.0507009873554804934193349852946, 1.6732632423543772848170429916717),
    "prelu": _prelu, "pow": _power, "square": lambda step: pointwise(step, "mul", [step["self"], step["self"]]),
    **dict.fromkeys(("bitwise_and", "__and__"), _of_truths(_binary("logical_and"))),
    **dict.fromkeys(("bitwise_or", "__or__"), _of_truths(_binary("logical_or"))),
    **dict.fromkeys(("bitwise_xor", "__xor__"), _of_truths(_binary("ne"))),
    "multiply": _binary("mul"), "subtract": _binary("sub"), "divide": _binary("div"), "true_divide": _binary("div"),
    "rsub": lambda step: pointwise(step, "sub", [step["other"], scaled(step, step["self"], step.get("alpha", 1))]),
    "where": lambda step: pointwise(step, "where", [step["condition"], step["self"], step["other"]]),
    "isnan": _composed(lambda do, s: do("ne", s["self"], s["self"])), "logical_xor": _of_truths(_binary("ne")),
    "masked_fill": _masked_fill, "glu": _glu,
    "addcmul": _composed(
        lambda do, s: do("add", s["self"], scaled(s, do("mul", s["tensor1"], s["tensor2"]), s["value"]))
    ),
    "log2": _composed(lambda do, s: do("mul", do("log", s["self"]), 1 / math.log(2))),
    "log10": _composed(lambda do, s: do("mul", do("log", s["self"]), 1 / math.log(10))),
    "exp2": _composed(lambda do, s: do("exp", do("mul", s["self"], math.log(2)))),
    "tan": _composed(lambda do, s: do("div", do("sin", s["self"]), do("cos", s["self"]))),
    **dict.fromkeys(("trunc", "fix"), _composed(lambda do, s: _truncated(do, s["self"]))),
    "frac": _composed(lambda do, s: do("sub", s["self"], _truncated(do, s["self"]))),
    "remainder": _composed(_remainder), "floor_divide": _floored,
    "tanhshrink": _composed(lambda do, s: do("sub", s["self"], do("tanh", s["self"]))),
    "softshrink": _composed(
        lambda do, s: do("sub", s["self"], do("clamp", s["self"], min=-s["lambd"], max=s["lambd"]))
    ),
    "hypot": _composed(
        lambda do, s: do("sqrt", do("add", do("mul", s["self"], s["self"]), do("mul", s["other"], s["other"])))
    ),
    "isfinite": lambda step: pointwise(step, "lt", [_size(step), math.inf]),
    "isinf": lambda step: pointwise(step, "eq", [_size(step), math.inf]),
    "nan_to_num": _composed(_numbers_for_nan),
    "lerp": _composed(lambda do, s: do("add", s["self"], do("mul", s["weight"], do("sub", s["end"], s["self"])))),
    "softsign": _composed(lambda do, s: do("div", s["self"], do("add", do("abs", s["self"]), 1.0))),
    "threshold": _composed(lambda do, s: do("where", do("gt", s["self"], s["threshold"]), s["self"], s["value"])),
    "hardshrink": _composed(lambda do, s: do("where", do("gt", do("abs", s["self"]), s["lambd"]), s["self"], 0.0)),
    "copy": _source("src"), "fill": _source("value"), "zero": lambda step: 0.0,
    "to": _cast, "_to_copy": _cast, "type_as": _cast,
}  # fmt: skip
