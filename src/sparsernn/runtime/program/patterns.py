"""What the rounds of a loop have in common: where each argument of each call comes from, in every round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .calls import Call, Ref


@dataclass(frozen=True)
class Leaf:
    """One argument. kind: "local" (result of call `place` in the same round), "carry" (`back` rounds before; `start` is
    what the first `back` rounds have there), "outer" (`item`, the same in each round), "element" (part t of `item` in
    round t), "index" (the number t + `item`), "list" (of leaves, `item`), "other" (`item`, no tensor)."""

    kind: str
    item: Any = None
    place: int = 0
    part: int | None = None
    start: tuple[Any, ...] = ()
    back: int = 0

    def leaves(self) -> Iterator[Leaf]:
        """Itself, or what is in the list."""
        if self.kind == "list":
            for leaf in self.item:
                yield from leaf.leaves()
        else:
            yield self


def patterns(calls: Sequence[Call], start: int, size: int, rounds: int) -> list[dict[str, Leaf]] | None:
    """The arguments of each call of a round; None where the rounds have not the same."""
    found = []
    for place in range(size):
        same = [calls[start + n * size + place] for n in range(rounds)]
        body = {}
        for name in same[0].args:
            given = [call.args[name] for call in same]
            leaf = _joined([_leaf(v, start + n * size, size, start) for n, v in enumerate(given)], given)
            if leaf is None:
                return None
            body[name] = leaf
        found.append(body)
    return found


def _leaf(value: Any, begin: int, size: int, start: int) -> Leaf | None:
    """Where an argument of the round that begins with call `begin` comes from."""
    if isinstance(value, (list, tuple)):
        leaves = [_leaf(v, begin, size, start) for v in value]
        return None if None in leaves else Leaf("list", tuple(leaves))
    if isinstance(value, Ref) and not value.input and value.call >= start:
        if value.call >= begin:
            return Leaf("local", None, value.call - begin, value.part)
        back = -((value.call - begin) // size)
        return Leaf("carry", None, value.call - begin + back * size, value.part, back=back)
    return Leaf("outer" if isinstance(value, (Ref, Tensor)) else "other", value)


def _joined(leaves: Sequence[Leaf | None], given: Sequence[Any]) -> Leaf | None:
    """The one leaf that stands for all rounds."""
    one = leaves[-1]
    if one is None or any(leaf is None for leaf in leaves):
        return None
    if one.kind == "list":
        lists = [leaf.item if leaf is not None and leaf.kind == "list" else None for leaf in leaves]
        if any(items is None or len(items) != len(one.item) for items in lists):
            return None
        parts = [_joined([items[n] for items in lists], [g[n] for g in given]) for n in range(len(one.item))]  # type: ignore[index]
        return None if None in parts else Leaf("list", tuple(parts))
    if one.kind == "carry":
        first, rest = leaves[: one.back], leaves[one.back :]
        same = len(rest) > 1 and all(_equal(leaf, one) for leaf in rest)
        same = same and all(leaf is not None and leaf.kind == "outer" for leaf in first)
        return replace(one, start=tuple(given[: one.back])) if same else None
    if all(_equal(leaf, one) for leaf in leaves):
        return one
    return _numbered(leaves, given)


def _numbered(leaves: Sequence[Leaf | None], given: Sequence[Any]) -> Leaf | None:
    if all(type(v) is int for v in given):
        steps = {v - n for n, v in enumerate(given)}
        return Leaf("index", steps.pop()) if len(steps) == 1 else None
    if all(isinstance(v, Ref) and not v.input for v in given) and len({v.call for v in given}) == 1:
        return Leaf("element", given[0]) if [v.part for v in given] == list(range(len(given))) else None
    return None


def _equal(one: Leaf | None, two: Leaf) -> bool:
    if one is None or (one.kind, one.place, one.part, one.back) != (two.kind, two.place, two.part, two.back):
        return False
    if isinstance(one.item, Tensor) and isinstance(two.item, Tensor):
        return one.item is two.item or _same_numbers(one.item, two.item)
    return type(one.item) is type(two.item) and one.item == two.item


def _same_numbers(one: Tensor, two: Tensor) -> bool:
    """Whether both are the same numbers in the code, of which torch makes a tensor in each round."""
    weights = isinstance(one, nn.Parameter) or isinstance(two, nn.Parameter)
    alike = one.dtype == two.dtype and one.device == two.device and one.layout == two.layout == torch.strided
    return not weights and alike and torch.equal(one, two)
