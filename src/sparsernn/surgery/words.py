"""Words that mean nothing: rows of an embedding that are all zero share one row, by a map from word numbers to rows."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .._modules import copied
from ..structure import examples
from ..structure.classes import Plane
from ..structure.structure import Structure
from .attachments import attachments, register_attachment, remember
from .narrow import narrow_tensors
from .verify import mismatch


@register_attachment
class KeptWords:
    """Pre-hook of an embedding: word numbers of the dense model become numbers of the rows that are left.

    `rows`: int64 (words,), the row of each word. `padding`: the row that gets no gradient, None for none.
    """

    tag: ClassVar[str] = "kept_words"

    def __init__(self, rows: Tensor, padding: int | None) -> None:
        if rows.dtype != torch.int64 or rows.dim() != 1 or not len(rows) or int(rows.min()) < 0:
            raise ValueError(f"kept words: expected one row for each word, got {rows.dtype} {tuple(rows.shape)}.")
        if padding is not None and (type(padding) is not int or not 0 <= padding <= int(rows.max())):
            raise ValueError(f"kept words: padding is {padding!r}, expected a row or None.")
        self.rows, self.padding = rows, padding

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "padding": self.padding}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(data["rows"], data["padding"])

    def check(self, dense: nn.Module, small: nn.Module, narrowed: Set[tuple[int, int]]) -> None:
        if not isinstance(dense, nn.Embedding) or len(self.rows) != dense.num_embeddings:
            raise ValueError(f"kept words: {len(self.rows)} words, which the model does not have.")

    def attach(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Embedding) or int(self.rows.max()) >= module.num_embeddings:
            raise ValueError("kept words: the module is no embedding with as many rows.")
        if any(isinstance(old, KeptWords) for old in attachments(module)):
            raise ValueError("kept words: the module has them already.")
        module.padding_idx = self.padding
        module.register_forward_pre_hook(self, with_kwargs=True)
        remember(module, self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (self._row_of(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "input": self._row_of(kwargs["input"])}

    def _row_of(self, words: Tensor) -> Tensor:
        # Not by indexing, which takes negative numbers for words from the end.
        return self.rows.to(words.device).index_select(0, words.reshape(-1)).view(words.shape)


def narrow_words(
    model: nn.Module, small: nn.Module, structure: Structure, calls: list[examples.Call], dead: Tensor
) -> tuple[nn.Module, dict[Plane, Tensor], str]:
    """`small` with one row for all zero rows of each plain embedding, and the rows that went: (parameter, 0) -> bool.

    Embeddings whose weight is read by others as well (tied decoders) stay, and so does `small` where the result does
    not pass the check against `model`: a sentence says why.
    """
    found = copied(small)
    gone: dict[Plane, Tensor] = {}
    for name, module, rows in list(_spare(found)):
        before = module.weight.detach()
        stay = torch.cat([rows[:0], (~_zero(before)).nonzero()[:, 0].cpu(), rows[:1]]).sort().values
        mask = torch.ones(len(before), dtype=torch.bool)
        mask[stay] = False
        place = torch.full((len(before),), int((stay == rows[0]).nonzero()))
        place[stay] = torch.arange(len(stay))
        narrow_tensors(found, {(name, 0): mask})
        gone[name, 0] = mask
        module.num_embeddings = len(stay)
        padding = rows[0] if module.padding_idx is None else module.padding_idx
        padding = int(place[padding])
        old = next((a for a in attachments(module) if isinstance(a, KeptWords)), None)
        if old is None:
            KeptWords(place, padding).attach(module)
        else:
            old.rows, old.padding = place[old.rows], padding
            module.padding_idx = padding
    if not gone:
        return small, {}, ""
    problem = mismatch(model, found, calls, structure, dead)
    return (small, {}, f"words that are zero stay: {problem}.") if problem else (found, gone, "")


def forget_zero_rows(optimizer: torch.optim.Optimizer, small: nn.Module, gone: dict[Plane, Tensor]) -> None:
    """Momentum that the shared row brings along would move it, though it gets no gradient."""
    modules = {f"{path}.weight": module for path, module in small.named_modules() if isinstance(module, nn.Embedding)}
    for name in {name for name, _ in gone} & modules.keys():
        module = modules[name]
        for value in optimizer.state.get(module.weight, {}).values():
            if isinstance(value, Tensor) and value.shape == module.weight.shape:
                value[module.padding_idx] = 0


def _spare(model: nn.Module) -> Iterator[tuple[str, nn.Embedding, Tensor]]:
    """Name, embedding and zero rows (the one that stays first) where there are at least two."""
    names = {id(p): name for name, p in model.named_parameters()}
    owners = [id(p) for module in model.modules() for p in module._parameters.values()]
    for module in model.modules():
        if type(module) is not nn.Embedding or owners.count(id(module.weight)) > 1:
            continue
        zero = _zero(module.weight.detach()).cpu()
        rows = zero.nonzero()[:, 0]
        padding = module.padding_idx
        if len(rows) > 1:
            if padding is not None and bool(zero[padding]):
                rows = torch.cat([torch.tensor([padding]), rows[rows != padding]])
            yield names[id(module.weight)], module, rows


def _zero(weight: Tensor) -> Tensor:
    return ~weight.ne(0).any(1)
