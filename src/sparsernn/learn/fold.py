"""`fold`: make a trained model small without training it.

Units are taken out in the order in which the rest can make up for them best, and the matrices that read them are solved
anew by least squares over the inputs that the model really sees. No labels, no gradients: some thousand positions of
input are enough. The idea is that of optimal brain surgery (Hassibi and Stork, NeurIPS 1992) a whole unit at a time,
for every matrix that reads the unit: the next layer, the head, the layer itself at the next step. Single weights and
blocks go in the same way, each row making up for its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from .._modules import in_eval, unwrap
from ..structure.trace import quiet, trace
from .batches import inputs_of, shortened
from .cost import Cost
from .fold_units import fold_units
from .fold_weights import SHAPES, fold_weights
from .folded import FoldedSizes
from .governed import Include, governed
from .recording import recorded
from .units import governed_units


def fold(
    model: nn.Module,
    batches: Iterable[Any],
    to: float | Sequence[float] = 0.5,
    *,
    level: Literal["unit", "block", "word", "weight"] = "unit",
    bits: Literal[8, 4] | None = None,
    cost: Cost = "weights",
    include: Include = "recurrent",
    ridge: float = 0.1,
    carried_states: bool = False,
    inputs: Callable[[Any], Any] | None = None,
    positions: int = 40_000,
) -> Any:
    """A new model that reads as few units, or weights, as `to` asks for, the others making up for those that went.

    - `batches`: inputs as the model meets them, each as in `example_inputs` of `trace`; a DataLoader serves, labels
      are left out (of a list as many items are taken as `forward` has required arguments); `inputs`: what to take of
      a batch, where that is something else. No more is read than brings `positions` positions (batch times steps).
    - `to`: the share of the governed weights that `compact` leaves, or of `cost`: "mult-adds", or a function of the
      units left in each set, as in `Shrink`; above 1 it is in the unit of that function: `to=64 * 1024,
      cost=flash_bytes(...)` fits into 64 KiB of flash. Several sizes give several models, in one pass.
    - `level`: "unit"; "weight", "block" (16x1, tiled within each gate) or "word" (16x4, what the int8 kernels read at
      once), where a matrix has zeros instead of going, over all matrices together; `cost` is "weights" there.
    - `bits`: 8 or 4: the governed matrices are rounded as well, each row to multiples of one scale, and what that loses
      is made up for by what is rounded later (GPTQ, arXiv 2210.17323). `to=1` rounds alone.
    - `ridge`: keeps the solution from leaning on what few positions say, in shares of the inputs' mean power.

    What reads a unit has to be a linear layer, a convolution (of one group), a matrix product or a recurrent layer;
    units read in another way stay (`.kept`), and so do matrices used in another way. Returns `Folded`, or
    `FoldedSizes` for several sizes. The model handed in is not changed. Raises ValueError where a batch can't be run
    or holds NaN, and where `to` can't be reached.
    """
    model = unwrap(model)
    shares = _shares(to, bits, math.inf if callable(cost) else 1.0)
    if level not in ("unit", *SHAPES):
        raise ValueError(f'fold: level is {level!r}, expected "unit", "block", "word" or "weight".')
    if level != "unit" and cost != "weights":
        raise ValueError(f'fold: cost counts whole units, so it goes with level="unit", got level="{level}".')
    calls = inputs_of(batches, model, inputs, "fold")
    first = next(calls, None)
    if first is None:
        raise ValueError("fold: batches is empty; give some thousand positions of what the model takes.")
    if bits not in (None, 8, 4):
        raise ValueError(f"fold: bits is {bits!r}, expected 8, 4 or None.")
    chosen = governed(model, include)
    record = partial(recorded, model, chain([first], calls), positions)
    try:
        with quiet():
            if level == "unit" and (min(shares) < 1 or callable(cost)):
                short = shortened(in_eval(model), first)
                structure = trace(model, [short[1] or short[0]], carried_states=carried_states)
                groups = governed_units(structure, model, chosen, include)
                made = fold_units(model, structure, groups, chosen.weights, record, shares, cost, ridge, bits)
            else:
                made = fold_weights(
                    model, chosen.weights, "weight" if level == "unit" else level, record, shares, ridge, bits
                )
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            f"fold: ridge={ridge!r} leaves no solution, since some inputs always agree: give ridge= above 0 (0.1)."
        ) from error
    results = FoldedSizes(made)
    return results[0] if isinstance(to, (int, float)) else results


def _shares(to: float | Sequence[float], bits: int | None, below: float) -> list[float]:
    """`to` as a list, from large to small; below: 1, or infinity where it may be an amount of what `cost` counts."""
    shares = [to] if isinstance(to, (int, float)) else list(to)
    if not shares or not all(isinstance(s, (int, float)) and (0 < s < below or (s == 1 and bits)) for s in shares):
        raise ValueError(f"fold: to is {to!r}, expected a share between 0 and 1, or several of them.")
    return sorted(map(float, shares), reverse=True)
