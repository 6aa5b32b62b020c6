"""Initial states of the width before compaction: users build them from `hidden_size` or from constants, or pass
states that they kept from the dense model. A compacted layer takes them in either width."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..nn.ragged import RaggedState
from .attachments import attachments, register_attachment, remember
from .widths import WIDEST, rising, state_widths, whole

Kept = list[list[list[int]]]  # [h or c][layer and direction] -> the units that were kept, as dense indices


@register_attachment
class KeptStates:
    """Pre-hook of a recurrent module: cuts states of the dense width down to the kept units.

    `dense[s]` is the dense width of state s (h, or h and c), `kept[s][row]` the units of each layer and direction
    that are left. States of the module's own width pass; any other width raises ValueError.
    """

    tag: ClassVar[str] = "kept_states"

    def __init__(self, dense: Sequence[int], kept: Kept) -> None:
        self.dense = tuple(dense)
        self.kept = [[torch.tensor(row, dtype=torch.long) for row in rows] for rows in kept]
        if len(self.dense) != len(self.kept) or any(len(rows) != len(self.kept[0]) for rows in self.kept):
            raise ValueError("kept states: one list of units for each layer and direction is expected.")

    def to_json(self) -> dict[str, Any]:
        return {"dense": list(self.dense), "kept": [[row.tolist() for row in rows] for rows in self.kept]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        dense, kept = data["dense"], data["kept"]
        for width, rows in zip(dense, kept, strict=True):
            whole("kept states: a width", width, 1, WIDEST)
            for row in rows:
                rising("kept states: the units of a layer", row, width)
        return cls(dense, kept)

    def check(self, dense: nn.Module, small: nn.Module, narrowed: Set[tuple[int, int]]) -> None:
        most, own = state_widths(dense), state_widths(small)
        if [len(rows) for rows in self.kept] != [len(rows) for rows in own] or not own:
            raise ValueError(f"kept states: a {type(dense).__name__} has other states.")
        for width, rows, wide, narrow in zip(self.dense, self.kept, most, own):
            if width > min(wide) or [len(row) for row in rows] != narrow:
                raise ValueError(
                    f"kept states: widths {width} to {[len(r) for r in rows][:9]}, not {wide[:9]} to {narrow[:9]}."
                )

    def attach(self, module: nn.Module) -> None:
        for old in attachments(module):
            if isinstance(old, KeptStates):
                raise ValueError("kept states: the module has them already.")
        module.register_forward_pre_hook(self, with_kwargs=True)
        remember(module, self)

    def after(self, later: KeptStates) -> None:
        """Compose with a second compaction: `later.kept` counts the units that this one left."""
        self.kept = [[row[then] for row, then in zip(a, b)] for a, b in zip(self.kept, later.kept)]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        if kwargs is None:  # torch's dynamic quantisation registers hooks anew, without keywords
            found = self(module, args, {})
            return None if found is None else found[0]
        if len(args) > 1 and args[1] is not None:
            return (args[0], self._states(args[1]), *args[2:]), kwargs
        if kwargs.get("hx") is not None:
            return args, {**kwargs, "hx": self._states(kwargs["hx"])}
        return None

    def _states(self, hx: Any) -> Any:
        # torch takes [h, c] as well as (h, c); a list for a single state is one of rows.
        if (isinstance(hx, tuple) or (isinstance(hx, list) and len(self.dense) > 1)) and len(hx) == len(self.dense):
            return tuple(self._cut(state, which) for which, state in enumerate(hx))
        return self._cut(hx, 0)

    def _cut(self, state: Any, which: int) -> Any:
        rows, dense = self.kept[which], self.dense[which]
        if not isinstance(state, Tensor):
            return state
        widths = {len(row) for row in rows}
        width = int(state.shape[-1])  # exporters hand out sizes as tensors
        if width != dense or widths == {dense}:
            if width not in widths or len(widths) > 1:
                raise ValueError(
                    f"The initial state has width {width}; expected {sorted(widths)} (what compaction left) "
                    f"or {dense} (the width before compaction)."
                )
            return state
        if len(rows) == 1 and state.dim() <= 2:  # a cell, or an unbatched layer without leading axis
            return state.index_select(-1, rows[0].to(state.device))
        cut = [one.index_select(-1, row.to(state.device)) for one, row in zip(state.unbind(0), rows)]
        return torch.stack(cut) if len(widths) == 1 else RaggedState(cut)


def keep_states(module: nn.Module, dense: Sequence[int], kept: Kept, attach: bool) -> None:
    """Compose `KeptStates` with those of an earlier compaction; where there are none, attach them if that is wanted."""
    if all(row == list(range(width)) for width, rows in zip(dense, kept) for row in rows):
        return
    fresh = KeptStates(dense, kept)
    for old in attachments(module):
        if isinstance(old, KeptStates):
            old.after(fresh)
            return
    if attach:
        fresh.attach(module)
