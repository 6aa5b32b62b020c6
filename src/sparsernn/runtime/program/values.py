"""What a tensor of the whole call is in one time step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from .program import Clock

CONST = "constant"  # depends on no input: `data` has its values
HELD = "held"  # depends on inputs that are the same at each step, and on nothing else
SEQUENCE = (
    "sequence"  # one element a step along its time axis, which has size 1 here (or k, where others are folded in)
)
GONE = "gone"  # elements at a fixed place: only their shape is known; `why` says what asking for more means
NOW = "now"  # no time axis: what the whole call over the steps so far would give


@dataclass(frozen=True)
class Value:
    """`tensor`: a tensor without memory ("meta") whose storage stands for a buffer, of the shape that one step has.

    axis: the time axis, along which a held or constant value is the same; lengths: its sizes in both runs, divided by
    its size in the step. clock: when an element comes. A constant gets its tensor when an operation reads it.
    """

    kind: str
    tensor: Tensor | None = None
    axis: int | None = None
    clock: Clock = field(default_factory=Clock)
    lengths: tuple[int, int] = (0, 0)
    data: Tensor | None = None
    why: str = ""

    def but(self, tensor: Tensor, **changes: object) -> Value:
        """The same time behind another tensor."""
        return replace(self, tensor=tensor, **changes)  # type: ignore[arg-type]

    @property
    def moves(self) -> bool:
        """Whether it changes from step to step."""
        return self.kind in (SEQUENCE, NOW)


@dataclass(frozen=True)
class Elements:
    """A sequence taken apart into its steps, for a loop that reads one in each round. keep: with a time axis of 1."""

    sequence: Value
    keep: bool = False

    def __getitem__(self, _: int) -> Value:
        return Value(GONE, why="the model reads a fixed step of a sequence, which a stream has passed.")
