"""Products and look-ups with weights: linear, matmul, einsum, convolution, embedding, norms, attention."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..channels import ROW
from ..ledger import Ledger
from ..shadow import Shadow
from .contract import contract
from .derived import derived
from .recurrent import distinct_rows

LOWER, UPPER = string.ascii_lowercase, string.ascii_uppercase


def _get(args: Sequence[Any], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def product(ledger: Ledger, equation: str, a: Tensor, b: Tensor) -> Tensor | None:
    return contract(ledger, equation, ledger.shadow(a), ledger.shadow(b), (a.shape, b.shape))


def add_bias(ledger: Ledger, label: Tensor | None, bias: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Add a bias (a parameter, another activation, or a constant) to a product's output."""
    if bias is None:
        return label
    shadow = ledger.shadow(bias)
    if label is None:
        ledger.keep_weights(shadow.weights)
        return ledger.combine([shadow.label], shape)
    if shadow.is_weight:
        for weight in shadow.weights:
            ledger.own_along(label, weight, additive=True)
        return label
    if shadow.label is None and not shadow.zero:
        ledger.channels.shift(label)
        ledger.lose(label, "its bias is not a parameter")
    return ledger.combine([label, shadow.label], shape)


def linear(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Tensor | Shadow | None:
    x, weight, bias = (_get(args, kwargs, n, name) for n, name in enumerate(("input", "weight", "bias")))
    batch = UPPER[: x.dim() - 1]
    equation = f"{batch}k,nk->{batch}n" if weight.dim() == 2 else f"{batch}k,k->{batch}"
    label = product(ledger, equation, x, weight)
    matrix = derived(ledger, equation, x, weight) if bias is None else None
    return matrix or add_bias(ledger, label, bias, result.shape)


def matmul(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Tensor | Shadow | None:
    a, b = _get(args, kwargs, 0, "input"), _get(args, kwargs, 1, "other", kwargs.get("mat2"))
    return _matrix_product(ledger, a, b)


def rmatmul(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Tensor | Shadow | None:
    return _matrix_product(ledger, args[1], args[0])


def _matrix_product(ledger: Ledger, a: Tensor, b: Tensor) -> Tensor | Shadow | None:
    equation = _matmul_equation(a, b)
    label = product(ledger, equation, a, b)
    return derived(ledger, equation, a, b) or label


def _matmul_equation(a: Tensor, b: Tensor) -> str:
    batch = UPPER[: max(a.dim(), b.dim(), 2) - 2]
    left = "k" if a.dim() == 1 else batch[len(batch) - (a.dim() - 2) :] + "ik"
    right = "k" if b.dim() == 1 else batch[len(batch) - (b.dim() - 2) :] + "kj"
    out = batch + ("i" if a.dim() > 1 else "") + ("j" if b.dim() > 1 else "")
    return f"{left},{right}->{out}"


def outer(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Tensor | None:
    return product(ledger, "i,j->ij", args[0], args[1])


def addmm(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Tensor | None:
    bias, a, b = args[:3]
    if kwargs.get("beta", 1) == 0:
        bias = None
    return add_bias(ledger, product(ledger, _matmul_equation(a, b), a, b), bias, result.shape)


def einsum(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Any:
    operands = list(args[1]) if len(args) == 2 and isinstance(args[1], (list, tuple)) else list(args[1:])
    sides, out = _equation(args[0], operands) if isinstance(args[0], str) and operands else ([], "")
    if not sides or any(len(set(s)) != len(s) for s in (*sides, out)):
        return NotImplemented
    if len(operands) == 1:
        shadow = ledger.shadow(operands[0])
        return NotImplemented if shadow.is_weight else _rearranged(ledger, shadow.label, sides[0], out)
    found, letters, shape = ledger.shadow(operands[0]), sides[0], operands[0].shape
    for n in range(1, len(operands)):
        later = set("".join(sides[n + 1 :]) + out)
        left = out if n + 1 == len(operands) else "".join(c for c in dict.fromkeys(letters + sides[n]) if c in later)
        sizes = dict(zip(letters, shape)) | {c: s for c, s in zip(sides[n], operands[n].shape) if s > 1}
        equation = f"{letters},{sides[n]}->{left}"
        label = contract(ledger, equation, found, ledger.shadow(operands[n]), (shape, operands[n].shape))
        found, letters, shape = Shadow(label), left, torch.Size(sizes.get(c, 1) for c in left)
    return found.label


def _equation(text: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with those that stand for an ellipsis."""
    equation = text.replace(" ", "")
    if "->" not in equation:
        letters = [c for c in equation if c.isalpha()]
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        equation += "->" + ("..." if "..." in equation else "") + "".join(once)
    left, out = equation.split("->")
    sides = left.split(",")
    free = [c for c in UPPER + LOWER if c not in equation]
    counts = [x.dim() - len(s.replace("...", "")) for x, s in zip(operands, sides)]
    widest = max(counts)
    filled = [s.replace("...", "".join(free[widest - n : widest])) for s, n in zip(sides, counts)]
    return filled, out.replace("...", "".join(free[:widest]))


def _rearranged(ledger: Ledger, label: Tensor | None, letters: str, out: str) -> Any:
    """An einsum of one operand: axes in another order, and sums over those that are left out."""
    if label is None:
        return None
    summed = [n for n, c in enumerate(letters) if c not in out]
    merged, agree = ledger.collapse(label, summed)
    if not agree:
        return NotImplemented
    left = [c for c in letters if c in out]
    for n in reversed(summed):
        merged = merged.squeeze(n)
    return merged.permute([left.index(c) for c in out])


def tensordot(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Any:
    a, b = args[:2]
    dims = _get(args, kwargs, 2, "dims", 2)
    if isinstance(dims, Tensor):
        return NotImplemented
    pair = (range(a.dim() - dims, a.dim()), range(dims)) if isinstance(dims, int) else dims
    first, second = ([d % x.dim() for d in given] for x, given in zip((a, b), pair))
    left, right = list(LOWER[: a.dim()]), list(UPPER[: b.dim()])
    for m, n in zip(first, second):
        right[n] = left[m]
    out = "".join([c for c in left if c not in right] + [c for c in right if c not in left])
    return product(ledger, f"{''.join(left)},{''.join(right)}->{out}", a, b)


def bilinear(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Any:
    x1, x2, weight, bias = (_get(args, kwargs, n, k) for n, k in enumerate(("input1", "input2", "weight", "bias")))
    number = ledger.number(weight)
    if number is None:
        return NotImplemented
    for axis, x in ((1, x1), (2, x2)):
        label = ledger.label(x)
        if label is not None:
            for row in distinct_rows(label):
                ledger.read(number, axis, np.arange(len(row)), row)
    return add_bias(ledger, _rows(ledger, number, 0, result, -1), bias, result.shape)


def _rows(ledger: Ledger, number: int, axis: int, result: Tensor, at: int) -> Tensor:
    """The label of an output whose axis `at` is computed by the planes of a weight along `axis`."""
    size = ledger.numbering.shapes[number][axis]
    ids = ledger.channels.block(("row", number, axis), size, ROW) + np.arange(size)
    ledger.own(number, axis, np.arange(size), ids, value=True)
    view = [1] * result.dim()
    view[at] = size
    return torch.from_numpy(ids).view(view).expand(result.shape)


def convolution(ledger: Ledger, args: Any, kwargs: Any, result: Tensor, transposed: bool = False) -> Any:
    x, weight, bias = (_get(args, kwargs, n, k) for n, k in enumerate(("input", "weight", "bias")))
    groups = _get(args, kwargs, 6, "groups", 1)
    shadow, label = ledger.shadow(weight), ledger.label(x)
    spatial = weight.dim() - 2
    at = x.dim() - spatial - 1  # the channel axis
    ones = [1] * spatial
    if label is not None:
        label, agree = ledger.collapse(label, range(at + 1, x.dim()))
        label = label.view(label.shape[: at + 1])
        if not agree:
            ledger.keep(label, "a convolution along the units")
            label = None
    batch, kernel = UPPER[:at], LOWER[:spatial]
    if groups == 1:
        axes = "kn" if transposed else "nk"
        equation = f"{batch}x,{axes.replace('k', 'x').replace('n', 'y')}{kernel}->{batch}y"
        out = contract(ledger, equation, Shadow(label), shadow, (x.shape[: at + 1], weight.shape))
    elif groups == weight.shape[0] == x.shape[at] and weight.shape[1] == 1 and label is not None:
        for part in shadow.weights:  # depthwise: each channel has a filter of its own
            ledger.own_along(label, tuple(p[:, 0].reshape(len(p), -1)[:, 0] for p in part), additive=False)
        out = label
    else:
        ledger.lose(label, "a grouped convolution")
        ledger.keep_weights(shadow.weights)
        return None
    out = add_bias(ledger, out, bias, torch.Size([*x.shape[:at], result.shape[at]]))
    return None if out is None else out.view(*out.shape, *ones).expand(result.shape)


def transposed_convolution(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Any:
    return convolution(ledger, args, kwargs, result, transposed=True)


def embedding(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Any:
    index, weight = _get(args, kwargs, 0, "input"), _get(args, kwargs, 1, "weight")
    ledger.keep(ledger.shadow(index).label, "its value is used as an index")
    ledger.keep(ledger.label(kwargs.get("per_sample_weights")), "it weighs the entries of a bag")
    number = ledger.number(weight)
    return NotImplemented if number is None else _rows(ledger, number, 1, result, -1)


def batch_norm(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Any:
    names = ("input", "running_mean", "running_var", "weight", "bias")
    x, *statistics = (_get(args, kwargs, n, k) for n, k in enumerate(names))
    label = ledger.label(x)
    if label is None:
        return None
    merged, agree = ledger.collapse(label, [a for a in range(x.dim()) if a != 1])
    if not agree:
        return NotImplemented
    ledger.channels.shift(label)
    for tensor in statistics:
        if tensor is not None:
            for weight in ledger.shadow(tensor).weights:
                view = [1, -1] + [1] * (x.dim() - 2)
                ledger.own_along(merged.expand(merged.shape), tuple(p.view(view) for p in weight), additive=True)
    return label


def attention(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> Any:
    """scaled_dot_product_attention: queries and keys are multiplied unit by unit, values are averaged over time."""
    q, k, v = (_get(args, kwargs, n, name) for n, name in enumerate(("query", "key", "value")))
    batch = UPPER[: q.dim() - 2]
    product(ledger, f"{batch}qd,{batch}kd->{batch}qk", q, k)
    label = ledger.label(v)
    if label is None:
        return None
    merged, agree = ledger.collapse(label, [v.dim() - 2])
    return merged.expand(result.shape) if agree else NotImplemented


PRODUCTS: dict[str, Callable[..., Any]] = {
    "linear": linear,
    **dict.fromkeys(("matmul", "__matmul__", "linalg_matmul", "mm", "bmm", "mv", "dot", "vdot", "inner"), matmul),
    "tensordot": tensordot,
    "__rmatmul__": rmatmul,
    **dict.fromkeys(("outer", "ger"), outer),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), addmm),
    "einsum": einsum,
    "bilinear": bilinear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys((f"conv_transpose{n}d" for n in (1, 2, 3)), transposed_convolution),
    **dict.fromkeys(("embedding", "embedding_bag"), embedding),
    "batch_norm": batch_norm,
    "scaled_dot_product_attention": attention,
}
