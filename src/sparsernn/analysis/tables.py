"""The rows of a report as plain data: what each layer, matrix, gate and kind of unit holds, and what compaction leaves.

Words: *weights* are the numbers in matrices, biases apart, each stored number once; *parameters* are all numbers.
*Multiply-adds* are those of the examples, in one sequence and one step of the recurrent layer that takes most steps: a
weight of that layer counts one, of a convolution as often as it has positions in a step, of a head on the last step
alone one over the number of steps. Looked-up tables and biases count none, nor do products of two activations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Part = Literal["input", "recurrent", "projection", "weight", "lookup", "bias", "other"]


@dataclass(frozen=True)
class Count:
    """Sizes that add up: of a parameter, a layer, or the model."""

    parameters: int = 0
    weights: int = 0
    nonzero: int = 0  # of the weights
    bytes: int = 0  # of the parameters as stored
    mult_adds: int = 0  # of dense products

    def __add__(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))

    @property
    def density(self) -> float:
        """Share of the weights that is not zero; 1 where there are none."""
        return self.nonzero / self.weights if self.weights else 1.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "density": self.density}


@dataclass(frozen=True)
class Gate:
    """The rows of one gate in one matrix; `constant` of its units have a gate that no input moves."""

    gate: str
    rows: int
    weights: int
    nonzero: int
    constant: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "density": self.nonzero / self.weights if self.weights else 1.0}


@dataclass(frozen=True)
class Matrix:
    """One parameter: its counts now and after compaction (`compact`)."""

    parameter: str
    part: Part
    shape: tuple[int, ...]
    dtype: str
    now: Count
    compact: Count
    gates: tuple[Gate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameter": self.parameter,
            "part": self.part,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "now": self.now.to_dict(),
            "compact": self.compact.to_dict(),
            "gates": [gate.to_dict() for gate in self.gates],
        }


@dataclass(frozen=True)
class Units:
    """One kind of units of one layer and direction.

    Each of the `size` units is one of: `dead` (compact takes it out now), `free` (may go, once all that reads it is
    zero), `kept` (can't go; the reasons say why).
    """

    name: str
    size: int
    dead: int
    free: int
    kept: int
    dead_units: tuple[int, ...]

    @property
    def left(self) -> int:
        return self.size - self.dead

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "left": self.left, "dead_units": list(self.dead_units)}


@dataclass(frozen=True)
class Reason:
    """Why `units` units of `unit_set` can't go: the operation that reads them, and where it stands."""

    unit_set: str
    units: int
    reason: str
    operation: str
    where: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Layer:
    """One layer and direction of a recurrent module, or one other module with parameters.

    `gates`: gates that are not constant, of the units that stay (Lobacheva, arXiv 1911.05585, counts these);
    `constant_gates`: gates of those units that are a constant. `kinds`: number of units by kind of cell.
    """

    name: str
    kind: str  # "LSTM", "Linear", ...
    recurrent: bool
    matrices: tuple[Matrix, ...]
    units: tuple[Units, ...] = ()
    gates: int = 0
    constant_gates: int = 0
    unused_inputs: int = 0  # columns of weight_ih without a weight
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def now(self) -> Count:
        return sum((m.now for m in self.matrices), Count())

    @property
    def compact(self) -> Count:
        return sum((m.compact for m in self.matrices), Count())

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "recurrent": self.recurrent,
            "now": self.now.to_dict(),
            "compact": self.compact.to_dict(),
            "units": [units.to_dict() for units in self.units],
            "gates": self.gates,
            "constant_gates": self.constant_gates,
            "unused_inputs": self.unused_inputs,
            "kinds": dict(self.kinds),
            "matrices": [matrix.to_dict() for matrix in self.matrices],
        }
