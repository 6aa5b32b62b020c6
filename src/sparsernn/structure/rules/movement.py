"""Movement: the same elements in another place. The same torch function, run on the index tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from ..ledger import Ledger
from ..shadow import NONE, Shadow, Weight, collapse, expand_constant, grow


def first(args: Any, kwargs: Any) -> tuple[Tensor, tuple, dict]:
    if args:
        return args[0], tuple(args[1:]), dict(kwargs)
    rest = dict(kwargs)
    key = "input" if "input" in rest else next(iter(rest))
    return rest.pop(key), (), rest


def indices(ledger: Ledger, rest: Any) -> Any:
    """The other arguments of a movement, on the CPU; channels that steer a movement stay."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            ledger.keep(ledger.shadow(leaf).label, "its value is used as an index")
            return leaf.detach().cpu()
        return leaf

    return tree_map(one, rest)


def move(ledger: Ledger, func: Callable, args: Any, kwargs: Any) -> list[Shadow] | None:
    source, rest, kw = first(args, kwargs)
    shadow = ledger.shadow(source)
    if not getattr(func, "__name__", "").endswith("_as"):  # the other tensor of expand_as is but a shape
        rest, kw = indices(ledger, (rest, kw))

    def run(index: Tensor) -> list[Tensor]:
        try:
            moved = func(index, *rest, **kw)
        except NotImplementedError:  # not for integers; in float64 every number is exact
            moved = tree_map(lambda leaf: leaf.long(), func(index.double(), *rest, **kw))
        except RuntimeError:  # a view that an expanded index does not allow
            moved = func(index.contiguous(), *rest, **kw)
        return [expand_constant(leaf) for leaf in tree_iter(moved) if isinstance(leaf, Tensor)]

    try:
        label = run(shadow.label) if shadow.label is not None else None
        weights = [[run(part) for part in weight] for weight in shadow.weights]
    except (RuntimeError, NotImplementedError, TypeError):  # not for integers: the caller keeps the units
        return None
    if label is None and not weights:
        return [shadow] * 64
    count = len(label) if label is not None else len(weights[0][0])
    return [
        Shadow(
            label=None if label is None else label[n],
            weights=tuple(tuple(part[n] for part in weight) for weight in weights),
            state=shadow.state,
            zero=shadow.zero,
        )
        for n in range(count)
    ]


def join(ledger: Ledger, name: str, func: Callable, args: Any, kwargs: Any) -> list[Shadow] | None:
    tensors, rest, kw = first(args, kwargs)
    tensors = list(tensors)
    kw.pop("padding_value", None)
    rest = rest[:1] if name == "pad_sequence" else rest
    shadows = [ledger.shadow(x) for x in tensors]

    def run(parts: Sequence[Tensor]) -> Tensor:
        return expand_constant(func(list(parts), *rest, **kw))

    def blank(x: Tensor) -> Tensor:
        return torch.zeros(1, dtype=torch.long).expand(x.shape) if x.dim() else torch.zeros((), dtype=torch.long)

    # Old torch lets an empty 1-D tensor be concatenated with anything; int64 index tensors follow the same rule.
    label = None
    if any(s.label is not None for s in shadows):
        label = run([blank(x) if s.label is None else s.label for x, s in zip(tensors, shadows)])
    weights: list[Weight] = []
    for depth in range(max(len(s.weights) for s in shadows)):
        chosen = [s.weights[depth] if depth < len(s.weights) else () for s in shadows]
        length = max(len(w) for w in chosen)
        parts = [grow(w, length) if w else (blank(x),) * length for w, x in zip(chosen, tensors)]
        weights.append(tuple(run([p[n] for p in parts]) for n in range(length)))
    state = all(s.state or s.zero for s in shadows) and any(s.state for s in shadows)
    return [Shadow(label, tuple(weights), state=state, zero=all(s.zero for s in shadows))]


def pad(ledger: Ledger, name: str, func: Callable, args: Any, kwargs: Any, result: Any) -> list[Shadow] | None:
    source, rest, kw = first(args, kwargs)
    label = ledger.label(source)
    if label is None:
        return [NONE]
    if name == "_pad_packed_sequence":
        merged, agree = collapse(label, [0])
        if agree:
            return [Shadow(merged.expand(result[0].shape))]
        batch_sizes, batch_first = rest[0], rest[1]
        total = rest[3] if len(rest) > 3 else -1
        return [Shadow(func(label.contiguous(), batch_sizes.cpu(), batch_first, 0, total)[0])]
    mode = kw.get("mode", rest[1] if len(rest) > 1 else "constant")
    value = kw.get("value", rest[2] if len(rest) > 2 else None)
    amounts = kw.get("pad", rest[0] if rest else ())
    if mode != "constant":
        return [Shadow(_pad_from_itself(label, amounts, mode, result.shape))]
    if value:
        ledger.channels.shift(label)
    return [Shadow(expand_constant(torch.nn.functional.pad(label, amounts, value=0)))]


def _pad_from_itself(label: Tensor, amounts: Sequence[int], mode: str, shape: torch.Size) -> Tensor:
    """Reflect, replicate and circular padding of the last axes."""
    last = [label.dim() - 1 - n for n in range(len(amounts) // 2)]
    for axis in range(label.dim()):
        small = label.stride(axis) == 0 and (axis not in last or all(label.stride(a) == 0 for a in last))
        if axis < label.dim() - len(last) - 1 and small:
            label = label.narrow(axis, 0, 1)
    if all(label.stride(axis) == 0 or label.shape[axis] == 1 for axis in last):
        for axis in last:
            label = label.narrow(axis, 0, 1)
        return label.expand(shape)
    # Not for integers; every channel number is exact in float64.
    padded = torch.nn.functional.pad(label.double(), list(amounts), mode=mode).long()
    return expand_constant(padded.expand(shape))


def set_items(ledger: Ledger, target: Tensor, index: Any, value: Any) -> None:
    label = ledger.label(value)
    place = ledger.store.open(target, force=label is not None)
    if place is not None:
        index = indices(ledger, index)
        place[index] = torch.zeros((), dtype=torch.long) if label is None else label


def scatter(ledger: Ledger, name: str, args: Any, kwargs: Any) -> list[Shadow] | None:
    """scatter, index_copy and index_fill: values, of another tensor or one number, put where the index says."""
    names = ("input", "dim", "index", "src" if "value" not in kwargs else "value")
    given = [args[n] if len(args) > n else kwargs.get(key, kwargs.get("source")) for n, key in enumerate(names)]
    target, dim, index, source = given
    if len(args) + len(kwargs) != 4 or not isinstance(index, Tensor):
        return None
    index = indices(ledger, index)
    labels = [ledger.label(a) if isinstance(a, Tensor) else None for a in (target, source)]
    place = torch.zeros(target.shape, dtype=torch.long) if labels[0] is None else labels[0].contiguous()
    if labels[1] is None:
        return [Shadow((torch.index_fill if name.startswith("index") else torch.scatter)(place, dim, index, 0))]
    method = torch.scatter if name == "scatter" else torch.index_copy
    return [Shadow(method(place, dim, index, labels[1].contiguous()))]


def gather_sums(ledger: Ledger, args: Any, kwargs: Any, result: Tensor) -> list[Shadow] | None:
    """index_add, scatter_add and their kin: values added up where the index says, along an axis without units."""
    if len(args) < 4 or not isinstance(args[3], Tensor):
        return None
    indices(ledger, args[2])
    merged = []
    for tensor in (args[0], args[3]):
        label = ledger.label(tensor)
        small, agree = (None, True) if label is None else ledger.collapse(label, [args[1] % tensor.dim()])
        if not agree:
            return None
        merged.append(small)
    return [Shadow(ledger.combine(merged, result.shape))]
