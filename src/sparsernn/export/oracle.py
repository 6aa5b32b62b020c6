"""The plan run in numpy: float32, in the same order of operations as the C file, whose bits it gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .lowering import SCRATCH, Plan
from .places import NUMPY_TYPES

_KINDS = {"f": np.float32, SCRATCH: np.float32, "i": np.int32, "b": np.bool_, "q": np.int8}


class Oracle:
    """The state of one run of a plan: `step(*inputs)`, `reset()`, `memory`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.number = 0
        self.memory = {name: np.zeros(size, _KINDS[name]) for name, size in plan.sizes.items()}
        self.memory.update(plan.tables.arrays)
        self.reset()

    def reset(self) -> None:
        """As NAME_reset: all zeros but for states that begin otherwise."""
        self.number = 0
        for name in self.plan.sizes:
            self.memory[name][...] = self.plan.start.get(name, 0)

    def step(self, *inputs: np.ndarray) -> list[np.ndarray | None]:
        """The outputs of a step, None where one is not due. inputs: of the shapes of the program's ports."""
        for argument, value in zip(self.plan.inputs, inputs, strict=True):
            place = argument.place
            self.memory[place.array] = np.array(value, NUMPY_TYPES[place.dtype]).reshape(-1)
        self.memory["number"] = np.array(self.number)
        with np.errstate(all="ignore"):
            for timed in self.plan.timed:
                if timed.clock.due(self.number):
                    for step in timed.steps:
                        step.run(self.memory)
        now, self.number = self.number, self.number + 1
        return [a.inside.of(self.memory).copy() if a.port.clock.due(now) else None for a in self.plan.outputs]

    def run(self, inputs: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray | None]]:
        """Several steps."""
        return [self.step(*one) for one in inputs]
