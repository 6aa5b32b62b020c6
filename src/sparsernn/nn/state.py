"""The states of a stack whose layers or directions differ in width: rows that no one tensor can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor


class RaggedState:
    """h_n or c_n of a stack with unequal widths: one row for each layer and direction, in torch's order.

    Row n has shape (batch, width n), or (width n,) for an unbatched call. Indexing and iterating give those rows as
    plain tensors: `h_n[-1]`, `h_n[0]`, `h_n[-1, :, :]`, `torch.cat((h_n[-2], h_n[-1]), dim=1)`. A slice of rows that
    have one width is a plain tensor, else a `RaggedState`. `view(num_layers, num_directions, batch, -1)` splits the
    first axis. `detach`, `to`, `clone`, `index_select(1, index)`, `repeat_interleave(n, 1)`, `repeat(1, n, 1)` and
    products with one value a sequence act on every row. Whatever needs one width for all rows raises TypeError.
    """

    is_ragged_state: ClassVar[bool] = True  # stands for one tensor wherever outputs are counted

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self.rows = tuple(rows)
        if not self.rows or not all(isinstance(row, Tensor) for row in self.rows):
            got = ", ".join(type(row).__name__ for row in self.rows) or "none"
            raise TypeError(f"RaggedState needs one tensor for each layer and direction; got {got}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """The last size of each row."""
        return tuple(row.shape[-1] for row in self.rows)

    @property
    def device(self) -> torch.device:
        """The device of its rows."""
        return self.rows[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its rows."""
        return self.rows[0].dtype

    @property
    def requires_grad(self) -> bool:
        """True if a row needs a gradient."""
        return any(row.requires_grad for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"RaggedState(widths={self.widths}, dtype={self.dtype}, device={self.device})"

    def dim(self) -> int:
        """Number of axes, as torch's h_n has them: 3, or 2 for an unbatched call."""
        return self.rows[0].dim() + 1

    def size(self, dim: int) -> int:
        """Size along the first axis (rows) or, of a batched state, the second (batch)."""
        axis = dim + self.dim() if dim < 0 else dim
        if axis == 0:
            return len(self.rows)
        if axis == 1 and self.dim() == 3:
            return self.rows[0].shape[0]
        self._refuse(f"size({dim})")

    def __getitem__(self, index: Any) -> Any:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, int) and not isinstance(first, bool):
            if not -len(self.rows) <= first < len(self.rows):
                raise IndexError(f"row {first} of a state with {len(self.rows)} rows (one a layer and direction).")
            row = self.rows[first]
            return row[tuple(rest)] if rest else row
        # Of several rows only the batch may be indexed: their last axes have different widths and meanings.
        width = rest[self.dim() - 2 :]
        if (
            not isinstance(first, slice)
            or any(part is None or part is Ellipsis for part in rest)
            or not all(isinstance(part, slice) and part == slice(None) for part in width)
        ):
            self._refuse(f"index {index!r}")
        rows = self.rows[first]
        if not rows:
            raise IndexError(f"slice {first!r} leaves none of the {len(self.rows)} rows.")
        return pack_rows([row[tuple(rest)] for row in rows] if rest else rows)

    def view(self, *sizes: int) -> RaggedLayers:
        """(num_layers, num_directions, batch, -1): the rows by layer and direction.

        The last size may also be the width before surgery, which no row exceeds.
        """
        shape = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else list(sizes)
        batch = self.rows[0].shape[:-1]
        if len(shape) != 2 + len(batch) + 1 or shape[2:-1] not in ([*batch], [-1]):
            self._refuse(f"view({str(shape)[1:-1]})")
        layers, directions, *_ = shape
        if layers == -1 and directions > 0:
            layers = len(self.rows) // directions
        if directions == -1 and layers > 0:
            directions = len(self.rows) // layers
        if layers * directions != len(self.rows) or not (shape[-1] == -1 or shape[-1] >= max(self.widths)):
            self._refuse(f"view({str(shape)[1:-1]})")
        return RaggedLayers([self.rows[n * directions : (n + 1) * directions] for n in range(layers)])

    reshape = view

    def index_select(self, dim: int, index: Tensor) -> RaggedState:
        """Pick along the batch axis (dim 1)."""
        if dim != 1 or self.dim() != 3:
            self._refuse(f"index_select(dim={dim})")
        return self._each(lambda row: row.index_select(0, index))

    def repeat_interleave(self, repeats: int | Tensor, dim: int | None = None) -> RaggedState:
        """Each sequence of the batch (dim 1) `repeats` times in a row, as beam search does."""
        if dim not in (1, -2) or self.dim() != 3:
            self._refuse(f"repeat_interleave(dim={dim})")
        return self._each(lambda row: row.repeat_interleave(repeats, 0))

    def repeat(self, *sizes: int) -> RaggedState:
        """(1, n, 1): the whole batch n times."""
        given = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
        if self.dim() != 3 or len(given) != 3 or given[0] != 1 or given[2] != 1:
            self._refuse(f"repeat{given}")
        return self._each(lambda row: row.repeat(given[1], 1))

    def __mul__(self, factor: float | Tensor) -> RaggedState:
        """Times a number, or a tensor with one value for each sequence: (batch, 1) or (1, batch, 1)."""
        if not isinstance(factor, Tensor):
            if not isinstance(factor, (int, float)):
                self._refuse("Arithmetic")
            return self._each(lambda row: row * factor)
        shape = factor.shape
        if factor.dim() and (shape[-1] != 1 or factor.dim() > self.dim() or (factor.dim() == 3 and shape[0] != 1)):
            self._refuse("Arithmetic")
        one = factor[0] if factor.dim() == 3 else factor
        return self._each(lambda row: row * one)

    __rmul__ = __mul__

    def detach(self) -> RaggedState:
        """The same values, cut off from the graph of gradients."""
        return self._each(lambda row: row.detach())

    def clone(self) -> RaggedState:
        """A copy in memory of its own."""
        return self._each(lambda row: row.clone())

    def contiguous(self) -> RaggedState:
        """Each row contiguous in memory."""
        return self._each(lambda row: row.contiguous())

    def to(self, *args: Any, **kwargs: Any) -> RaggedState:
        """Each row on another device or in another dtype; arguments as of `torch.Tensor.to`."""
        return self._each(lambda row: row.to(*args, **kwargs))

    def cpu(self) -> RaggedState:
        """Each row in main memory."""
        return self._each(lambda row: row.cpu())

    def cuda(self) -> RaggedState:
        """Each row on the current CUDA device."""
        return self._each(lambda row: row.cuda())

    def _each(self, change: Callable[[Tensor], Tensor]) -> RaggedState:
        return RaggedState([change(row) for row in self.rows])

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that this class lacks. Dunder lookups (copy, pickle) must fail plainly.
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(f"RaggedState has no attribute {name!r}")
        raise AttributeError(_sentence(self, name), name=name, obj=self)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        state = next((a for a in _flat((args, kwargs or {})) if isinstance(a, RaggedState)), None)
        if func in _AS_METHODS and args and args[0] is state:
            return getattr(state, func.__name__)(*args[1:], **(kwargs or {}))
        if func in (torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__) and len(args) == 2:
            return args[0] * args[1] if args[0] is state else args[1] * args[0]
        name = torch.overrides.resolve_name(func) or getattr(func, "__name__", str(func))
        raise TypeError(_sentence(state, name) if state is not None else f"{name} does not take a RaggedState.")

    def __add__(self, other: object) -> NoReturn:
        self._refuse("Arithmetic")

    __radd__ = __sub__ = __rsub__ = __truediv__ = __add__

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(_sentence(self, what))


_AS_METHODS = (torch.index_select, torch.repeat_interleave, torch.clone, torch.detach)


class RaggedLayers:
    """What `RaggedState.view(num_layers, num_directions, batch, -1)` gives: [layer] and [layer, direction]."""

    def __init__(self, layers: Sequence[Sequence[Tensor]]) -> None:
        self.layers = tuple(tuple(rows) for rows in layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Tensor | RaggedState]:
        return (pack_rows(rows) for rows in self.layers)

    def __getitem__(self, index: Any) -> Any:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if not isinstance(first, int) or isinstance(first, bool):
            raise TypeError(
                f"Layers of unequal widths can't be indexed with {first!r}: take one layer by its number, [-1] or [0]."
            )
        state = pack_rows(self.layers[first])
        return state[tuple(rest)] if rest else state


def pack_rows(rows: Sequence[Tensor]) -> Tensor | RaggedState:
    """One tensor (rows, ...) where all rows have one shape, else a `RaggedState`."""
    if all(row.shape == rows[0].shape for row in rows):
        return torch.stack(tuple(rows))
    return RaggedState(rows)


def state_rows(name: str, value: Any, widths: list[int], batch: int, unbatched: bool) -> list[Tensor]:
    """The rows of a state given as tensor, `RaggedState` or sequence of tensors, each (batch, width), checked."""
    if not isinstance(value, (Tensor, RaggedState, tuple, list)):
        raise RuntimeError(f"{name}: expected a tensor or a RaggedState, got {type(value).__name__}.")
    rows = [row.unsqueeze(0) if unbatched else row for row in (value.unbind(0) if isinstance(value, Tensor) else value)]
    expected = [(batch, width) for width in widths]
    got = [tuple(row.shape) for row in rows]
    if got != expected:
        if unbatched:
            expected, got = [shape[1:] for shape in expected], [shape[1:] for shape in got]
        raise RuntimeError(
            f"Expected {name} with rows of shapes {expected} (one a layer and direction), got {got}.\n"
            "Pass the state that the module returned, a list of such rows, or none for zeros."
        )
    return rows


def _sentence(state: RaggedState, what: str) -> str:
    return (
        f"{what} needs one width, but the layers and directions of this state have widths {list(state.widths)}.\n"
        "Take rows by their number (state[-1], state[0]) or iterate over them; each is a plain tensor."
    )


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        yield value
        return
    for part in value:
        yield from _flat(part)
