"""What each kind of torch operation does to channels: the table of rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

from .. import operations as ops
from ..channels import Because
from ..ledger import Ledger
from ..shadow import Shadow
from .along import SHAPES
from .elementwise import elementwise, gated_linear_unit, unary
from .movement import gather_sums, join, move, pad, scatter, set_items
from .normed import weight_norm
from .products import PRODUCTS
from .quantised import GRIDS
from .recurrent import CELLS, LAYERS, follow_cell, follow_layer
from .reductions import along_axes

OVERWRITE = frozenset("""fill_ zero_ normal_ uniform_ random_ bernoulli_ exponential_ log_normal_ cauchy_""".split())


SCATTER = frozenset(["scatter", "index_copy", "index_fill"])
GATHER = frozenset("index_add scatter_add scatter_reduce index_reduce".split())

# Products whose weight mixes channels.
MATRICES = frozenset(PRODUCTS) - {"embedding", "embedding_bag", "batch_norm", "scaled_dot_product_attention"}


def follow(ledger: Ledger, name: str, func: Callable, args: Any, kwargs: Any, result: Any) -> None:
    """Record what `func(*args, **kwargs) -> result` does, and give the result its shadows."""
    if name in ops.FINITE or (name in ops.ALIKE and _alike(ledger, args, kwargs, result)):
        return
    if name in ops.TO_PYTHON:
        if name not in ops.SILENT:
            forget(ledger, args, kwargs, "its value is used by Python code")
        return
    if name == "__setitem__":
        set_items(ledger, *args)
        return
    if name == "__deepcopy__":
        args = args[:1]  # the other one is copy's memory of all results
    if name in OVERWRITE:
        ledger.store.write(args[0], None)
        return
    in_place = (name.startswith("__i") and name.strip("_") not in ("invert", "index", "int", "iter")) or (
        name.endswith("_") and not name.endswith("__")
    )
    plain = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    plain = plain.removeprefix("special_")
    if kwargs.get("out") is not None:
        forget(ledger, args, kwargs, "written into an out= tensor")
        return
    shadows = _shadows(ledger, plain, func, args, kwargs, result)
    if shadows is None:
        forget(ledger, args, kwargs, *ops.WHOLE.get(plain, ()))
        shadows = _computed(ledger, args, kwargs, result)
    if (in_place or kwargs.get("inplace") is True) and isinstance(args[0], Tensor):
        label = ledger.as_activation(shadows[0]) if shadows else None
        ledger.store.write(args[0], None if label is None else label.expand(args[0].shape))
        return
    tensors = [leaf for leaf in tree_iter(result) if isinstance(leaf, Tensor)]
    for tensor, shadow in zip(tensors, shadows):
        if not any(tensor is a for a in tree_iter((args, kwargs))):
            ledger.store.know(tensor, shadow)


def forget(
    ledger: Ledger,
    args: Any,
    kwargs: Any,
    text: str = "an operation that is not followed",
    because: Because = Because.NOT_FOLLOWED,
) -> None:
    """Nothing is known of what happens to the arguments: their channels stay."""
    for leaf in tree_iter((args, kwargs)):
        if isinstance(leaf, Tensor):
            shadow = ledger.shadow(leaf)
            ledger.keep(shadow.label, text, because)
            ledger.keep_weights(shadow.weights)


def _computed(ledger: Ledger, args: Any, kwargs: Any, result: Any, only_lost: bool = False) -> list[Shadow]:
    """The shadows of a result that an operation which is not followed computed from parameters alone.

    `only_lost`: the operation is followed, so that nothing is lost but what is lost already.
    """
    shadows = [ledger.shadow(leaf) for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
    weights = [weight for shadow in shadows for weight in shadow.weights]
    reason = next(filter(None, map(ledger.numbering.why_lost, weights)), None)
    found = [] if only_lost else [n for n in ledger.parameters_in(*weights) if n not in ledger.numbering.buffers]
    if any(shadow.label is not None for shadow in shadows) or not (found or reason):
        return []
    if reason is None:
        names = ", ".join(ledger.numbering.names[n] for n in found[:3])
        reason = ledger.lost(f"read through a weight that is computed from {names}")
    return [ledger.numbering.lost(reason, leaf.shape) for leaf in tree_iter(result) if isinstance(leaf, Tensor)]


def _shadows(ledger: Ledger, name: str, func: Callable, args: Any, kwargs: Any, result: Any) -> list[Shadow] | None:
    """Shadows of the result's tensors in order, or None where the operation is unknown."""
    if name in LAYERS:
        found = follow_layer(ledger, name, args)
        return [_expanded(s, r) for s, r in zip(found, result)]
    if name in CELLS:
        found = follow_cell(ledger, name, args)
        return [_expanded(s, r) for s, r in zip(found, result if isinstance(result, tuple) else (result,))]
    if name in PRODUCTS:
        found = PRODUCTS[name](ledger, args, kwargs, result)
        if found is NotImplemented:
            return None
        if found is None:  # a weight that is lost already, times another weight
            return _computed(ledger, args, kwargs, result, only_lost=True)
        return [found if isinstance(found, Shadow) else Shadow(found)]
    if name in ops.MOVE_FIRST:
        moved = move(ledger, func, args, kwargs)
        # The second result of packing is how many sequences each step has.
        return moved[:1] if moved and name == "_pack_padded_sequence" else moved
    if name in ops.MOVE_LIST:
        return join(ledger, name, func, args, kwargs)
    if name in ("pad", "_pad_packed_sequence"):
        return pad(ledger, name, func, args, kwargs, result)
    if name in ("masked_fill", "dropout") and not isinstance(result, Tensor):
        return None
    two_tensors = (len(args) > 1 and isinstance(args[1], Tensor)) or isinstance(kwargs.get("other"), Tensor)
    if name in ops.ELEMENTWISE or name in ops.ELEMENTWISE_ZERO or (name in ("max", "min") and two_tensors):
        return [elementwise(ledger, name, args, kwargs, result)]
    if name in ops.UNARY_ZERO or name in ops.UNARY:
        return [unary(ledger, name, args, kwargs, result)]
    if name in ops.REDUCE or name in ops.ALONG or name in ops.STATISTICS or name in ops.POOL:
        return along_axes(ledger, name, args, kwargs, result)
    if name in GRIDS:
        return GRIDS[name](ledger, args, kwargs)
    if name in SHAPES:
        return SHAPES[name](ledger, args, kwargs, result)
    if name == "glu":
        return gated_linear_unit(ledger, args, kwargs)
    if name == "copy":
        source = ledger.shadow(args[1])
        return [Shadow(_fit(ledger.as_activation(source), args[0].shape))]
    if name in SCATTER:
        return scatter(ledger, name, args, kwargs)
    if name in GATHER:
        return gather_sums(ledger, args, kwargs, result)
    if name == "interpolate" and result.dim() > 2:
        return along_axes(ledger, name, args, {**kwargs, "dim": tuple(range(2, result.dim()))}, result)
    if name == "broadcast_tensors" or name == "meshgrid":
        return [Shadow(_fit(ledger.label(a), r.shape)) for a, r in zip(tree_iter(args), result)]
    if name == "_weight_norm":
        return weight_norm(ledger, *args, **kwargs)
    return None


def _alike(ledger: Ledger, args: Any, kwargs: Any, result: Any) -> bool:
    """Whether the same units were compared with each other and found equal: `assert (output == hidden).all()`."""
    a, b = (ledger.label(leaf) for leaf in [*args, *kwargs.values()][:2])
    if a is None or b is None or not bool(torch.as_tensor(result).all()):
        return False
    wide = torch.broadcast_tensors(a, b)
    return bool((wide[0] == wide[1]).all())


def _expanded(shadow: Shadow, like: Any) -> Shadow:
    if shadow.label is None or not isinstance(like, Tensor):
        return shadow
    label = shadow.label
    if label.dim() == 3 and like.dim() == 2:  # unbatched states: no batch axis
        label = label[:, 0]
    return Shadow(label.expand(like.shape), state=shadow.state)


def _fit(label: Tensor | None, shape: torch.Size) -> Tensor | None:
    return None if label is None else label.expand(shape)
