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
from typing import Any, Literal

import torch
from torch import nn

from .._modules import in_eval, unwrap
from ..structure.trace import quiet, trace
from .batches import inputs_of, positions_in, shortened
from .cost import Cost
from .fold_options import check_numbers, check_values, shares_of
from .fold_units import fold_units
from .fold_weights import SHAPES, fold_weights
from .folded import FoldedSizes
from .governed import Include, governed
from .options import number
from .recording import first_of, kinds, recorded
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

    The choice is that of optimal brain surgery (Hassibi and Stork, NeurIPS 1992), a whole unit at a time and for every
    matrix that reads it.

    What reads a unit has to be a linear layer, a convolution (of one group), a matrix product or a recurrent layer;
    units read in another way stay (`.kept`), and so do matrices used in another way. Returns `Folded`, or
    `FoldedSizes` for several sizes. The model handed in is not changed. Raises ValueError where a batch can't be run
    or holds NaN, and where `to` can't be reached.
    """
    model = unwrap(model)
    single = number(to) is not None
    shares = shares_of(to, math.inf if callable(cost) else 1.0, whole=bits is not None)
    check_numbers(ridge, positions)
    if level not in ("unit", *SHAPES):
        raise ValueError(f'fold: level is {level!r}, expected "unit", "block", "word" or "weight".')
    if level != "unit" and cost != "weights":
        raise ValueError(f'fold: cost counts whole units, so it goes with level="unit", got level="{level}".')
    if bits not in (None, 8, 4):
        raise ValueError(f"fold: bits is {bits!r}, expected 8, 4 or None.")
    chosen = governed(model, include)
    check_values(model, chosen.weights)
    filled = (call for call in inputs_of(batches, model, inputs, "fold") if positions_in(call))
    first, calls = first_of(filled, positions)
    if not first:
        raise ValueError("fold: batches is empty, or they hold no position (batch times steps); give some thousand.")
    record = partial(recorded, model, calls, positions)
    try:
        with quiet():
            if level == "unit" and (min(shares) < 1 or callable(cost)):
                ways, used = kinds(model, first)
                short = [shortened(in_eval(model), call) for call in ways]
                structure = trace(model, [given or args for args, given in short], carried_states=carried_states)
                record = partial(record, known=used)
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
    return results[0] if single else results
