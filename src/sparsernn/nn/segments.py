"""Which part of its input each component of a split layer reads (Demeester et al., arXiv 1808.08720, section 3)."""

from __future__ import annotations

import math

Segment = tuple[int, int]  # begin, end


def blocks_for_reduction(
    input_size: int, hidden_size: int, reduce_in: float, reduce_out: float, *, bias: bool = True
) -> tuple[int, float]:
    """(blocks, input density) of a split layer with as many parameters as a dense one of
    reduce_in x input_size inputs and reduce_out x hidden_size units.

    The smallest feasible number of blocks. Where even full inputs do not reach that size, the density is 1 and the
    layer stays a little smaller. Raises ValueError where no split layer has that size.
    """
    for name, value in (("reduce_in", reduce_in), ("reduce_out", reduce_out)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} is {value}, expected a share above 0 and up to 1.")
    a, b = reduce_in, reduce_out
    # Per unit and gate: inputs of its component + units of its component (+ 2 biases) = the dense layer's share.
    room = a * b * input_size + b * b * hidden_size + (2 * b - 2 if bias else 0)
    blocks = math.ceil((input_size + hidden_size) / room) if room > 0 else 0
    if blocks < 1 or (blocks >= input_size and blocks > 1) or blocks > hidden_size:
        raise ValueError(
            f"A layer {input_size} -> {hidden_size} can't be reduced by {reduce_in} (inputs) and {reduce_out} (units): "
            f"it would need {blocks or 'infinitely many'} components.\nAsk for a smaller reduction."
        )
    density = min(1.0, (room - hidden_size / blocks) / input_size)
    check_pattern(blocks, density, input_size, hidden_size)
    return blocks, density


def check_pattern(blocks: object, density: object, input_size: int, hidden_size: int) -> None:
    """ValueError unless `blocks` components can share out the units and together read every input."""
    if not isinstance(blocks, int) or isinstance(blocks, bool) or not 1 <= blocks <= min(hidden_size, input_size):
        raise ValueError(
            f"blocks is {blocks!r}; expected a whole number from 1 to {min(hidden_size, input_size)}, "
            "so that each component has a unit and an input."
        )
    if isinstance(density, bool) or not isinstance(density, (int, float)) or not 1 / blocks - 1e-9 <= density <= 1:
        raise ValueError(
            f"input_density is {density!r}; expected 1/blocks = {1 / blocks:.4g} to 1, so that every input is read."
        )


def segments(size: int, blocks: int, density: float) -> tuple[Segment, ...]:
    """`blocks` parts of range(size), each about density x size long, evenly spaced, overlapping where they must.

    density 1/blocks gives parts side by side, 1 the whole range each time.
    """
    length = size * density
    step = (size - length) / (blocks - 1) if blocks > 1 else 0.0
    found = [(int(n * step + 1e-7), int(n * step + length + 1e-7)) for n in range(blocks)]
    return (*found[:-1], (found[-1][0], size))
