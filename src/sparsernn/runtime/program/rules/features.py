"""Products, norms and lookups: operations along features, whatever the step."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..eliminate import Rule, Step, joined
from ..program import BOOL, INT, Clock
from ..values import CONST, Value
from .moves import clock_of
from .moves import index as by_constants
from .pointwise import aligned, pointwise


def linear(step: Step) -> Value:
    """x W^T + b."""
    name = "input" if "input" in step.args else "self"
    return product(step, step[name], step["weight"], step.get("bias"))


def product(step: Step, x: Value, weight: Value, bias: Value | None) -> Value:
    """weight: (out, in), constant, else it is a matrix product."""
    step.kept_apart(x, [-1])
    tensor, matrix = step.tensor(x), step.tensor(weight)
    if weight.kind != CONST:
        step.fail("multiplies with a weight that the model computes from its input.")
    if not tensor.is_floating_point():
        step.fail("multiplies whole numbers.")
    shape = (*tensor.shape[:-1], matrix.shape[0]) if matrix.dim() == 2 else tensor.shape[:-1]
    if matrix.dim() == 1:
        matrix = matrix.unsqueeze(0)
    out = step.build.made(
        "linear", (tensor, matrix, step.tensor(bias)), (*tensor.shape[:-1], matrix.shape[0]), clock_of(x)
    )
    return step.gives(out.view(shape), x)


def _transposed(step: Step, weight: Value) -> Value:
    """A constant matrix (in, out) as weight (out, in), with memory of its own."""
    assert weight.data is not None
    data = weight.data.mT.contiguous()
    return Value(CONST, step.build.constant(data, "weight"), data=data)


def matmul(step: Step) -> Value:
    """matmul, mm, bmm, mv, dot: with a constant matrix on the right a linear layer, else a product of both."""
    left, right = step["self"], step.get("other", step.get("mat2", step.get("tensor", step.get("vec"))))
    return multiplied(step, left, right)


def multiplied(step: Step, left: Value, right: Value) -> Value:
    if right.kind == CONST and right.data is not None and right.data.dim() == 2 and left.moves:
        return product(step, left, _transposed(step, right), None)
    left, right = aligned(step, [left, right])
    kind, clock = joined(step, [left, right])
    step.kept_apart(left, [-1])
    step.kept_apart(right, [-2] if step.dim(right) > 1 else [-1])
    axis = step.axis()
    a, b = step.tensor(left), step.tensor(right)
    one, two = a.dim() == 1, b.dim() == 1
    a, b = a[None] if one else a, b[:, None] if two else b
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    out = step.build.made("matmul", (a, b), (*batch, a.shape[-2], b.shape[-1]), clock)
    out = out.squeeze(-2) if one else out
    out = out.squeeze(-1) if two else out
    lengths = next((v.lengths for v in (left, right) if v.axis is not None), (0, 0))
    if axis is None and (left.axis is not None or right.axis is not None):
        step.fail("sums over the steps of the sequence.")
    return Value(kind, out, axis, clock, lengths)


def addmm(step: Step) -> Value:
    """beta self + alpha (left right), where both are 1."""
    if step.get("beta", 1) != 1 or step.get("alpha", 1) != 1:
        step.fail("scales its summands.")
    left = step.get("mat1", step.get("batch1", step.get("mat")))
    right = step.get("mat2", step.get("batch2", step.get("vec")))
    return pointwise(step, "add", [step["self"], multiplied(step, left, right)])


def einsum(step: Step) -> Value:
    """Of operands each letter once in an operand; of several two at a time."""
    equation, operands = step["equation"].replace(" ", ""), list(step["tensors"])
    if "->" not in equation or "." in equation:
        step.fail("does not name all axes of its tensors and of its result: write them out, or as matmul.")
    left, out = equation.split("->")
    letters = left.split(",")
    if any(len(set(word)) < len(word) for word in letters):
        step.fail("takes a diagonal.")
    operands = aligned(step, operands)
    kind, clock = joined(step, operands)
    step_axis = step.axis()
    for value, word in zip(operands, letters):
        if value.axis is not None and (word[value.axis] not in out or out.index(word[value.axis]) != step_axis):
            step.fail("sums over the steps of the sequence.")
    tensors = [
        _summed(step, step.tensor(v), word, out, letters, n, clock)
        for n, (v, word) in enumerate(zip(operands, letters))
    ]
    while len(tensors) > 2:
        (a, one), (b, two), *rest = tensors
        later = out + "".join(word for _, word in rest)
        both = "".join(x for x in dict.fromkeys(one + two) if x in later)
        tensors = [(_two(step, [a, b], [one, two], both, clock), both), *rest]
    letters = [w for _, w in tensors]
    result = tensors[0][0] if len(tensors) == 1 else _two(step, [t for t, _ in tensors], letters, out, clock)
    word = letters[0] if len(tensors) == 1 else out
    result = result.permute([word.index(x) for x in out]) if len(tensors) == 1 else result
    lengths = next((v.lengths for v in operands if v.axis is not None), (0, 0))
    return Value(kind, result, step_axis, clock, lengths)


def _summed(step: Step, tensor: Tensor, word: str, out: str, letters: Sequence[str], n: int, clock: Clock) -> Any:
    """Letters that stand nowhere else are summed first."""
    others = out + "".join(w for m, w in enumerate(letters) if m != n)
    alone = [x for x in word if x not in others]
    if not alone:
        return tensor, word
    kept = [x for x in word if x in others]
    moved = tensor.permute([word.index(x) for x in (*kept, *alone)])
    shape = moved.shape[: len(kept)]
    return step.build.made("sum", (moved,), shape, clock, axes=len(alone)), "".join(kept)


def _two(step: Step, tensors: Sequence[Tensor], letters: Sequence[str], out: str, clock: Clock) -> Tensor:
    a, b = letters
    batch = [x for x in out if x in a and x in b]
    inner = [x for x in a if x in b and x not in out]
    rows, columns = [x for x in a if x not in b], [x for x in b if x not in a]
    sizes = {x: n for t, w in zip(tensors, letters) for x, n in zip(w, t.shape)}

    def grouped(tensor: Tensor, word: str, *groups: Sequence[str]) -> Tensor:
        moved = tensor.permute([word.index(x) for group in groups for x in group])
        kept = [sizes[x] for x in groups[0]]
        return step.build.reshape(moved, [*kept, *(prod(sizes[x] for x in g) for g in groups[1:])], clock)

    left, right = grouped(tensors[0], a, batch, rows, inner), grouped(tensors[1], b, batch, inner, columns)
    made = step.build.made("matmul", (left, right), (*left.shape[:-1], right.shape[-1]), clock)
    order = [*batch, *rows, *columns]
    return made.view([sizes[x] for x in order]).permute([order.index(x) for x in out])


def embedding(step: Step) -> Value:
    """Rows of a table."""
    return looked_up(step, step["weight"], step["indices"])


_EXACT = 1 << 24  # below, float32 has each whole number


def looked_up(step: Step, table: Value, tokens: Value) -> Value:
    if table.kind != CONST:
        step.fail("looks up in a table that the model computes.")
    numbers, rows = step.tensor(tokens), step.tensor(table)
    if step.build.counts(numbers):
        step.fail("looks up the number of the step in a table, which has an end: compute it (sines of arange).")
    clock, shape, whole = clock_of(tokens), (*numbers.shape, rows.shape[1]), not rows.is_floating_point()
    if whole:  # kernels read tables of float32
        assert table.data is not None
        if bool((table.data.long().abs() >= _EXACT).any()):
            step.fail(f"looks up whole numbers of {_EXACT} and above.")
        rows = step.build.constant(table.data.double(), "table")
    out = step.build.made("lookup", (numbers, rows), shape, clock, rows)
    out = step.build.made("copy", (out,), shape, clock, step.call.result) if whole else out
    return step.gives(out, tokens)


def index(step: Step) -> Value:
    """table[numbers] of a constant table is a lookup; all else picks by constant numbers."""
    x, given = step["self"], [i for i in step["indices"] if i is not None]
    rows = given[0] if len(given) == 1 and step["indices"][0] is not None else None
    numbers = None if rows is None else step.tensor(rows)
    if any(i.moves and step.tensor(i).dtype == torch.bool for i in given):
        step.fail("picks as many elements as a mask has, which changes from step to step: use torch.where.")
    if rows is None or not rows.moves or numbers is None or numbers.dtype != torch.int64 or step.dim(x) > 2:
        return by_constants(step)
    if step.dim(x) == 1 and x.data is not None:  # a table with one column
        found = looked_up(step, Value(CONST, data=x.data.unsqueeze(1)), rows)
        return found.but(step.tensor(found).squeeze(-1))
    return looked_up(step, x, rows)


def one_hot(step: Step) -> Value:
    """Of each number whether it is 0, 1, ..."""
    x, count = step["self"], step["num_classes"]
    if count < 0:
        step.fail("counts its classes itself: say how many there are.")
    numbers, build, clock = step.tensor(x), step.build, clock_of(x)
    classes = build.constant(torch.arange(count, dtype=torch.int64, device="cpu"), "classes")
    shape = (*numbers.shape, count)
    same = build.made("eq", (numbers.unsqueeze(-1).expand(shape), classes.expand(shape)), shape, clock, BOOL)
    return x.but(build.made("copy", (same,), shape, clock, INT), data=None)


def softmax(step: Step) -> Value:
    """Along features alone."""
    x, dim = step["self"], step["dim"]
    step.kept_apart(x, [dim], "compares")
    tensor = step.tensor(x)
    moved = tensor.movedim(dim, -1)
    kind = step.name.strip("_").removeprefix("special_")
    out = step.build.made(kind, (moved,), moved.shape, clock_of(x))
    return x.but(out.movedim(-1, dim), data=None)


def layer_norm(step: Step) -> Value:
    """Also rms_norm."""
    x, axes = step["input"], len(step["normalized_shape"])
    step.kept_apart(x, range(-axes, 0), "normalises over")
    tensor, rms = step.tensor(x), step.name == "rms_norm"
    inputs = (tensor, step.tensor(step.get("weight")), step.tensor(step.get("bias")))
    out = step.build.made("normalise", inputs, tensor.shape, clock_of(x), axes=axes, eps=step["eps"], rms=rms)
    return x.but(out, data=None)


def group_norm(step: Step) -> Value:
    """Over the channels of a group and all that lies behind them."""
    x, groups = step["input"], step["num_groups"]
    tensor, clock = step.tensor(x), clock_of(x)
    step.kept_apart(x, range(1, tensor.dim()), "normalises over")
    split = step.build.reshape(tensor, (tensor.shape[0], groups, tensor.shape[1] // groups, *tensor.shape[2:]), clock)
    options = {"axes": split.dim() - 2, "eps": step["eps"], "rms": False}
    out = step.build.made("normalise", (split, None, None), split.shape, clock, **options).view(tensor.shape)
    for kind, parameter in (("mul", step.get("weight")), ("add", step.get("bias"))):
        if parameter is not None:
            channels = step.tensor(parameter).view(-1, *[1] * (tensor.dim() - 2)).expand(tensor.shape)
            out = step.build.made(kind, (out, channels), tensor.shape, clock)
    return x.but(out, data=None)


def batch_norm(step: Step) -> Value:
    """In eval mode a factor and a summand for each channel."""
    x = step["input"]
    if step.get("training", step.get("use_input_stats", False)):
        step.fail("takes the statistics of the batch: put the model into eval mode.")
    tensor, clock = step.tensor(x), clock_of(x)
    mean, variance = step["running_mean"].data, step["running_var"].data
    scale = torch.rsqrt(variance + step["eps"])
    scale = scale if step.get("weight") is None else scale * step["weight"].data
    shift = -mean * scale
    shift = shift if step.get("bias") is None else shift + step["bias"].data
    for kind, data in (("mul", scale), ("add", shift)):
        channels = step.build.constant(data, "batch_norm").view(-1, *[1] * (tensor.dim() - 2)).expand(tensor.shape)
        tensor = step.build.made(kind, (tensor, channels), tensor.shape, clock)
    return x.but(tensor, data=None)


def instance_norm(step: Step) -> Value:
    x = step["input"]
    if not step["use_input_stats"]:
        return batch_norm(step)
    step.kept_apart(x, range(2, step.dim(x)), "normalises over")
    return step.fail("is not among the operations that a step program has.")


def attention(step: Step) -> Value:
    """scaled_dot_product_attention among features, not among steps."""
    query, key, value = aligned(step, [step["query"], step["key"], step["value"]])
    for v in (query, key, value):
        step.kept_apart(v, [-1, -2], "attends over")
    if step.get("is_causal") or step.get("attn_mask") is not None or step.get("enable_gqa"):
        step.fail("has a mask: write the attention out.")
    kind, clock = joined(step, [query, key, value])
    q, k, v = map(step.tensor, (query, key, value))
    batch = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (t.expand(*batch, *t.shape[-2:]) for t in (q, k, v))
    scale = step.get("scale") or q.shape[-1] ** -0.5
    scores = step.build.made("matmul", (q, k.mT), (*q.shape[:-1], k.shape[-2]), clock)
    scores = step.build.made("mul", (scores, float(scale)), scores.shape, clock)
    weights = step.build.made("softmax", (scores,), scores.shape, clock)
    out = step.build.made("matmul", (weights, v), (*q.shape[:-1], v.shape[-1]), clock)
    lengths = next((v.lengths for v in (query, key, value) if v.axis is not None), (0, 0))
    return Value(kind, out, step.axis(), clock, lengths)


RULES: dict[str, Rule] = {
    "linear": linear, "matmul": matmul, "mm": matmul, "bmm": matmul, "mv": matmul, "dot": matmul, "addmm": addmm,
    "baddbmm": addmm, "addmv": addmm, "einsum": einsum, "embedding": embedding, "index": index, "one_hot": one_hot,
    "softmax": softmax,
    "_softmax": softmax, "log_softmax": softmax, "_log_softmax": softmax, "special_softmax": softmax,
    "layer_norm": layer_norm, "rms_norm": layer_norm, "group_norm": group_norm, "batch_norm": batch_norm,
    "instance_norm": instance_norm, "scaled_dot_product_attention": attention,
}  # fmt: skip
