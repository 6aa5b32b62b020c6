"""What each kind of torch operation does to channels: the table of rules, and the rules that are short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from . import operations as ops
from .channels import pairs
from .products import PRODUCTS
from .recurrent import CELLS, LAYERS, follow_cell, follow_layer
from .shadow import NONE, Shadow, Weight, collapse, expand_constant, fit, grow, varies

if TYPE_CHECKING:
    from .tracer import Tracer

ADDITIVE = frozenset(
    """add subtract sub rsub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ maximum minimum fmax fmin where lerp
    max min""".split()
)
ZERO_REDUCTIONS = frozenset(
    """sum nansum mean nanmean amax amin max min median norm vector_norm cumsum cummax cummin sort topk""".split()
)
OVERWRITE = frozenset("""fill_ zero_ normal_ uniform_ random_ bernoulli_ exponential_ log_normal_ cauchy_""".split())
SCATTER = frozenset(["scatter", "index_copy"])


def follow(tracer: Tracer, name: str, func: Callable, args: Any, kwargs: Any, result: Any) -> None:
    """Record what `func(*args, **kwargs) -> result` does, and give the result its shadows."""
    if name in ops.TO_PYTHON:
        if name not in ops.SILENT:
            forget(tracer, args, kwargs, "its value is used by Python code")
        return
    if name == "__setitem__":
        _setitem(tracer, *args)
        return
    if name in OVERWRITE:
        tracer.store.write(args[0], None)
        return
    in_place = (name.startswith("__i") and name.strip("_") not in ("invert", "index", "int", "iter")) or (
        name.endswith("_") and not name.endswith("__")
    )
    plain = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    if kwargs.get("out") is not None:
        forget(tracer, args, kwargs, "written into an out= tensor")
        return
    shadows = _shadows(tracer, plain, func, args, kwargs, result)
    if shadows is None:
        forget(tracer, args, kwargs, "an operation that is not followed")
        shadows = []
    if (in_place or kwargs.get("inplace") is True) and isinstance(args[0], Tensor):
        label = tracer.as_activation(shadows[0]) if shadows else None
        tracer.store.write(args[0], None if label is None else label.expand(args[0].shape))
        return
    tensors = [leaf for leaf in tree_iter(result) if isinstance(leaf, Tensor)]
    for tensor, shadow in zip(tensors, shadows):
        if not any(tensor is a for a in tree_iter((args, kwargs))):
            tracer.store.know(tensor, shadow)


def forget(tracer: Tracer, args: Any, kwargs: Any, text: str) -> None:
    """Nothing is known of what happens to the arguments: their channels stay."""
    for leaf in tree_iter((args, kwargs)):
        if isinstance(leaf, Tensor):
            shadow = tracer.shadow(leaf)
            tracer.keep(shadow.label, text)
            tracer.keep_weights(shadow.weights)


def _shadows(tracer: Tracer, name: str, func: Callable, args: Any, kwargs: Any, result: Any) -> list[Shadow] | None:
    """Shadows of the result's tensors in order, or None where the operation is unknown."""
    if name in LAYERS:
        found = follow_layer(tracer, name, args)
        return [_expanded(s, r) for s, r in zip(found, result)]
    if name in CELLS:
        found = follow_cell(tracer, name, args)
        return [_expanded(s, r) for s, r in zip(found, result if isinstance(result, tuple) else (result,))]
    if name in PRODUCTS:
        label = PRODUCTS[name](tracer, args, kwargs, result)
        return None if label is NotImplemented else [Shadow(label)]
    if name in ops.MOVE_FIRST:
        return _move(tracer, func, args, kwargs)
    if name in ops.MOVE_LIST:
        return _join(tracer, name, func, args, kwargs)
    if name in ("pad", "_pad_packed_sequence"):
        return _pad(tracer, name, func, args, kwargs, result)
    if name in ("masked_fill", "dropout") and not isinstance(result, Tensor):
        return None
    two_tensors = (len(args) > 1 and isinstance(args[1], Tensor)) or isinstance(kwargs.get("other"), Tensor)
    if name in ops.ELEMENTWISE or name in ops.ELEMENTWISE_ZERO or (name in ("max", "min") and two_tensors):
        return [_elementwise(tracer, name, args, kwargs, result)]
    if name in ops.UNARY_ZERO or name in ops.UNARY:
        return [_unary(tracer, name, args, kwargs, result)]
    if name in ops.REDUCE or name in ops.ALONG or name in ops.STATISTICS or name in ops.POOL:
        return _along_axes(tracer, name, args, kwargs, result)
    if name == "glu":
        return _glu(tracer, args, kwargs)
    if name == "copy":
        source = tracer.shadow(args[1])
        return [Shadow(_fit(tracer.as_activation(source), args[0].shape))]
    if name in SCATTER:
        return _scatter(tracer, func, args)
    if name == "broadcast_tensors" or name == "meshgrid":
        return [Shadow(_fit(tracer.label(a), r.shape)) for a, r in zip(tree_iter(args), result)]
    if name == "_weight_norm":
        v, g = args[0], args[1]
        scale = tuple(tracer.as_factor(w) for w in tracer.shadow(g).weights)
        weights = (*tracer.shadow(v).weights, *scale)
        return [Shadow(weights=tuple(tuple(fit(p, v.shape) for p in w) for w in weights))]
    return None


def _expanded(shadow: Shadow, like: Any) -> Shadow:
    if shadow.label is None or not isinstance(like, Tensor):
        return shadow
    label = shadow.label
    if label.dim() == 3 and like.dim() == 2:  # unbatched states: no batch axis
        label = label[:, 0]
    return Shadow(label.expand(like.shape), state=shadow.state)


def _fit(label: Tensor | None, shape: torch.Size) -> Tensor | None:
    return None if label is None else label.expand(shape)


def _first(args: Any, kwargs: Any) -> tuple[Tensor, tuple, dict]:
    if args:
        return args[0], tuple(args[1:]), dict(kwargs)
    rest = dict(kwargs)
    key = "input" if "input" in rest else next(iter(rest))
    return rest.pop(key), (), rest


def _indices(tracer: Tracer, rest: Any) -> Any:
    """The other arguments of a movement, on the CPU; channels that steer a movement stay."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            tracer.keep(tracer.shadow(leaf).label, "its value is used as an index")
            return leaf.detach().cpu()
        return leaf

    return tree_map(one, rest)


def _move(tracer: Tracer, func: Callable, args: Any, kwargs: Any) -> list[Shadow] | None:
    source, rest, kw = _first(args, kwargs)
    shadow = tracer.shadow(source)
    if not getattr(func, "__name__", "").endswith("_as"):  # the other tensor of expand_as is but a shape
        rest, kw = _indices(tracer, (rest, kw))

    def run(index: Tensor) -> list[Tensor]:
        try:
            moved = func(index, *rest, **kw)
        except RuntimeError:  # a view that an expanded index does not allow
            moved = func(index.contiguous(), *rest, **kw)
        return [expand_constant(leaf) for leaf in tree_iter(moved) if isinstance(leaf, Tensor)]

    try:
        label = run(shadow.label) if shadow.label is not None else None
        weights = [[run(part) for part in weight] for weight in shadow.weights]
    except (RuntimeError, NotImplementedError, TypeError):
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


def _join(tracer: Tracer, name: str, func: Callable, args: Any, kwargs: Any) -> list[Shadow] | None:
    tensors, rest, kw = _first(args, kwargs)
    tensors = list(tensors)
    kw.pop("padding_value", None)
    rest = rest[:1] if name == "pad_sequence" else rest
    shadows = [tracer.shadow(x) for x in tensors]

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


def _pad(tracer: Tracer, name: str, func: Callable, args: Any, kwargs: Any, result: Any) -> list[Shadow] | None:
    source, rest, kw = _first(args, kwargs)
    label = tracer.label(source)
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
    if mode != "constant":
        return None
    if value:
        tracer.channels.shift(label)
    return [Shadow(expand_constant(torch.nn.functional.pad(label, kw.get("pad", rest[0] if rest else ()), value=0)))]


def _elementwise(tracer: Tracer, name: str, args: Any, kwargs: Any, result: Tensor) -> Shadow:
    operands = [a for a in (*args, *kwargs.values()) if not isinstance(a, (str, torch.dtype)) and a is not None]
    shadows = [tracer.shadow(a) for a in operands]
    shape = result.shape
    masks = [isinstance(a, Tensor) and a.dtype == torch.bool and s.label is None for a, s in zip(operands, shadows)]
    if name == "prelu":
        shadows[1] = _on_axis_one(shadows[1], len(shape))
    label = tracer.combine([s.label for s in shadows], shape)
    quiet = [
        (isinstance(a, Tensor) and bool(s)) or (not isinstance(a, Tensor) and a == 0) for a, s in zip(operands, shadows)
    ]
    product = name in ops.ELEMENTWISE_ZERO
    if label is None:
        return _weights_only(tracer, name, operands, shadows, shape)
    for shadow in shadows:
        for weight in shadow.weights:
            tracer.own_along(label, weight, additive=not product)
    divided = product and "div" in name and shadows[0].label is None
    additive = name in ADDITIVE and all(q or m for q, m in zip(quiet, masks))
    if divided or not (product or additive or name == "prelu"):
        tracer.channels.shift(label)
    state = all(s.state or s.zero or m for s, m in zip(shadows, masks)) and any(s.state for s in shadows)
    return Shadow(label, state=state)


def _weights_only(
    tracer: Tracer, name: str, operands: Sequence[Any], shadows: Sequence[Shadow], shape: torch.Size
) -> Shadow:
    """A parameter, element by element with constants and other parameters: a weight again where zero stays zero."""
    weights = tuple(tuple(fit(p, shape) for p in w) for s in shadows for w in s.weights)
    if not weights:
        return Shadow(zero=name in ops.ELEMENTWISE_ZERO and any(s.zero for s in shadows))
    others = [
        a
        for a, s in zip(operands, shadows)
        if not s.weights and not s.zero and not (isinstance(a, (int, float)) and a == 0)
    ]
    if name in ops.ELEMENTWISE_ZERO and not ("div" in name and not shadows[0].weights):
        # A mask or a scale on a weight is cut with it, but it is the weight itself that has to be zero.
        main, *factors = (s for s in shadows if s.weights)
        scaled = tuple(tracer.as_factor(w) for s in factors for w in s.weights)
        return Shadow(weights=tuple(tuple(fit(p, shape) for p in w) for w in (*main.weights, *scaled)))
    if name in ADDITIVE and not others:
        return Shadow(weights=weights)
    tracer.keep_weights(weights)
    return NONE


def _on_axis_one(shadow: Shadow, dims: int) -> Shadow:
    def place(part: Tensor) -> Tensor:
        return part.view((1, -1) + (1,) * (dims - 2)) if dims > 1 and part.numel() > 1 else part

    return Shadow(weights=tuple(tuple(place(p) for p in w) for w in shadow.weights))


def _unary(tracer: Tracer, name: str, args: Any, kwargs: Any, result: Any) -> Shadow:
    source, _, _ = _first(args, kwargs)
    shadow = tracer.shadow(source)
    if name in ops.UNARY_ZERO:
        return shadow
    tracer.channels.shift(shadow.label)
    tracer.keep_weights(shadow.weights)
    return Shadow(shadow.label)


def _axes(name: str, source: Tensor, rest: tuple, kw: dict) -> list[int]:
    position = {**ops.REDUCE, **ops.ALONG}.get(name, 1) - 1
    default: Any = None if name in ops.REDUCE else (1 if name == "normalize" else -1)
    given = kw.get("dim", kw.get("axis", rest[position] if len(rest) > position else default))
    if given is None or isinstance(given, bool) or given == ():
        return list(range(source.dim()))
    given = [given] if isinstance(given, int) else list(given)
    return [g % source.dim() for g in given] if source.dim() else []


def _along_axes(tracer: Tracer, name: str, args: Any, kwargs: Any, result: Any) -> list[Shadow] | None:
    source, rest, kw = _first(args, kwargs)
    shadow = tracer.shadow(source)
    tracer.keep_weights(shadow.weights)
    label = shadow.label
    if label is None:
        return [NONE]
    if name in ops.POOL:
        axes = list(range(source.dim() - ops.POOL[name], source.dim()))
    elif name in ops.STATISTICS:
        if name == "cosine_similarity":
            return None
        shape = kw.get("normalized_shape", rest[0] if rest else ())
        count = len(shape) if name in ("layer_norm", "rms_norm") else source.dim() - 1
        axes = list(range(source.dim() - count, source.dim()))
    else:
        axes = _axes(name, source, rest, kw)
    merged, agree = collapse(label, axes)
    elsewhere = any(varies(label, a) for a in range(label.dim()) if a not in axes)
    if not agree and name in ops.REDUCE and elsewhere:
        # Several units of one place are merged (two directions averaged): they go together.
        for axis in axes:
            for n in range(1, label.shape[axis]):
                tracer.channels.union(*pairs(label.narrow(axis, 0, 1), label.narrow(axis, n, 1)), tracer.site())
        agree = True
    if not agree:
        tracer.keep(label, _WHY.get(name, f"{name} over the units mixes them without a weight"))
        return [NONE]
    if name in ops.STATISTICS:
        return None
    if name not in ZERO_REDUCTIONS and name not in ops.POOL:
        tracer.channels.shift(label)
    found = []
    for tensor in tree_iter(result):
        if isinstance(tensor, Tensor):
            small = merged
            if tensor.dim() != source.dim():
                for axis in sorted(axes, reverse=True):
                    small = small.squeeze(axis)
            found.append(Shadow(small.expand(tensor.shape), state=shadow.state and name in ops.ALONG))
    return found


_WHY = {
    "layer_norm": "LayerNorm: its mean and variance are taken over all units",
    "rms_norm": "RMSNorm: its mean square is taken over all units",
    "group_norm": "GroupNorm: its mean and variance are taken over several units",
    "softmax": "softmax over the units",
    "log_softmax": "softmax over the units",
    "normalize": "normalised over the units",
}


def _glu(tracer: Tracer, args: Any, kwargs: Any) -> list[Shadow]:
    source, rest, kw = _first(args, kwargs)
    shadow = tracer.shadow(source)
    tracer.keep_weights(shadow.weights)
    if shadow.label is None:
        return [NONE]
    left, right = shadow.label.chunk(2, dim=kw.get("dim", rest[0] if rest else -1))
    tracer.channels.shift(right)
    return [Shadow(tracer.combine([left, right], left.shape))]


def _setitem(tracer: Tracer, target: Tensor, index: Any, value: Any) -> None:
    label = tracer.label(value)
    place = tracer.store.open(target, force=label is not None)
    if place is not None:
        index = _indices(tracer, index)
        place[index] = torch.zeros((), dtype=torch.long) if label is None else label


def _scatter(tracer: Tracer, func: Callable, args: Any) -> list[Shadow] | None:
    if len(args) != 4 or not isinstance(args[3], Tensor):
        return None
    index = _indices(tracer, args[2])
    labels = [tracer.label(a) for a in (args[0], args[3])]
    blank = [
        torch.zeros(a.shape, dtype=torch.long) if x is None else x.contiguous()
        for a, x in zip((args[0], args[3]), labels)
    ]
    method = torch.scatter if "scatter" in getattr(func, "__name__", "") else torch.index_copy
    return [Shadow(method(blank[0], args[1], index, blank[1]))]
