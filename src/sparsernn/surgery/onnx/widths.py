"""Widths of states: after `compact` a file takes those that it gives, so that it can be called step by step."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from ...nn.state import RaggedState
from ...structure.examples import leaves_in
from ..attachments import attachments
from ..states import KeptStates
from .call import Flat
from .nest import Call
from .sizes import alike

Shape = tuple[Any, ...]


def with_own_widths(flat: Flat) -> Flat:
    """`flat` with the states of its example cut to what compaction left, where the model returns them so.

    With a warning it stays as it is where the model can't take them cut.
    """
    cut = _cut_states(flat)
    if not cut:
        return flat
    args, kwargs = flat.call.filled(iter([value.clone() for value in flat.examples]))
    given = {_shape(one) for one in leaves_in(flat.fresh().model(*args, **kwargs))}
    if not given & {_shape(state) for state in cut.values()}:
        return flat  # no state comes out
    names = [name for name in flat.names if name in cut]
    values = [cut.get(name, value) for name, value in zip(flat.names, flat.examples)]
    call: Call = flat.call.filled(iter(values))
    try:
        own = Flat(flat.model, call)
        if all(map(alike, own.run(own.examples), flat.run(flat.examples))):
            return own
    except Exception:  # the model does with the state what only one of a single width can take
        pass
    warnings.warn(
        f"export_onnx: {', '.join(names)} has the width before compaction, and the state that comes out that of the "
        "compacted layer: the file can't be called step by step.\n"
        "Pass the state straight to the layer, and the states that the compacted model returned as the example.",
        stacklevel=4,
    )
    return flat


def _cut_states(flat: Flat) -> dict[str, Any]:
    """Name of an input -> it in the widths of the compacted layer that it goes into as a state."""
    twin = flat.fresh()
    values = [value.clone() for value in flat.examples]
    taken: list[tuple[Any, Any]] = []  # states as they reach a layer, and cut

    def look(kept: KeptStates) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            after = kept(module, args, kwargs)
            if after is not None:
                wide, narrow = (args[1], after[0][1]) if len(args) > 1 else (kwargs["hx"], after[1]["hx"])
                both = zip(wide, narrow) if isinstance(wide, (tuple, list)) else [(wide, narrow)]
                taken.extend((a, b) for a, b in both if _shape(a) != _shape(b))

        return hook

    for module in twin.model.modules():
        for attachment in attachments(module):
            if isinstance(attachment, KeptStates):
                module.register_forward_pre_hook(look(attachment), prepend=True, with_kwargs=True)
    twin(*values)
    found: dict[str, Any] = {}
    for given, state in taken:
        free = [(name, value) for name, value in zip(flat.names, values) if name not in found]
        # Itself, or what an operation made of it: the run with the cut states shows whether that was right.
        same = [name for name, value in free if value is given]
        like = [name for name, value in free if value.shape == given.shape]
        if same or like:
            found[(same or like)[0]] = state
    return found


def _shape(value: Any) -> Shape:
    if isinstance(value, RaggedState):
        return tuple(tuple(row.shape) for row in value.rows)
    return tuple(value.shape) if isinstance(value, Tensor) else ()
