"""The step program of a model that takes a whole sequence: two runs, elimination of time, and a check."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..._modules import copied
from .builder import Builder
from .calls import NotAProgram, Ref
from .capture import Capture, capture, where
from .eliminate import Elimination
from .examples import Inputs, of_length
from .loops import eliminate
from .made import Made, Outputs
from .merging import merged
from .program import EACH_STEP, Clock, Port
from .rules import RULES
from .simplify import in_place, reach, started
from .values import CONST, GONE, HELD, SEQUENCE, Value
from .windows import delayed

MULTIPLE = 24  # lengths are multiples of it: models fold steps in pairs, threes, fours, sixes and eights
# Tried in turn; longer ones for what reaches far or has long strides, as amplifiers of ten dilated layers do.
LENGTHS = ((12, 24), (24, 48), (96, 192), (480, 960), (4320, 8640))
_LOOPED = 480  # no longer runs of a loop in Python


def sequence_program(model: nn.Module, inputs: Inputs, axes: Sequence[int | None], delay: int) -> Made:
    """The program of `model`, in eval mode and of the precision of `inputs`; NotAProgram with the reason.

    Inputs that are states are what those begin with, and no inputs of a step.
    """
    failure: Exception | None = None
    longest, looped = 0, False
    for lengths in LENGTHS:
        if looped and lengths[0] > _LOOPED:
            break
        try:
            runs = [_run(model, inputs, axes, steps) for steps in lengths]
        except NotAProgram:
            raise
        except Exception as error:  # whatever the model raises at this length
            failure = failure or error
            continue
        longest, looped = lengths[0], len(runs[0].calls) != len(runs[1].calls)
        try:
            build, made = _tried(runs, inputs, axes, lengths, delay)
        except _Found as found:
            if _long_enough(found.build, lengths):
                raise found.error from None
            failure = found.error
            continue
        if _long_enough(build, lengths):
            return made
    if isinstance(failure, NotAProgram):
        raise failure
    if failure is not None:
        text = (str(failure).splitlines() or [type(failure).__name__])[0]
        raise NotAProgram(
            f"it fails on its example with {LENGTHS[1][0]} time steps{where(failure)}: {text}; say by time= which axis "
            "is time."
        ) from failure
    raise NotAProgram(f"it looks back over more than {longest} steps.")


class _Found(Exception):
    """Why the runs have no program, and how far that was built."""

    def __init__(self, error: NotAProgram, build: Builder) -> None:
        super().__init__(str(error))
        self.error, self.build = error, build


def _tried(
    runs: Sequence[Capture], inputs: Inputs, axes: Sequence[int | None], lengths: tuple[int, int], delay: int
) -> tuple[Builder, Made]:
    """The program of the runs; of loops whose first round makes constants as well, with those made before."""
    first: _Found | None = None
    for again in (False, True) if len(runs[0].calls) != len(runs[1].calls) else (False,):
        build = Builder()
        try:
            return build, _eliminated(build, [merged(r) for r in runs] if again else runs, inputs, axes, lengths, delay)
        except NotAProgram as error:
            first = first or _Found(error, build)
    assert first is not None
    raise first


def _run(model: nn.Module, inputs: Inputs, axes: Sequence[int | None], steps: int) -> Capture:
    leaves = of_length(inputs, axes, steps, seed=steps)
    return capture(copied(model), leaves, inputs.arguments)


def _long_enough(build: Builder, lengths: tuple[int, int]) -> bool:
    """Whether the runs are longer than what an operation looks back to, and whole numbers of the slowest clock's."""
    slowest = max((o.clock.every for o in build.operations), default=1)
    return reach(build.operations) < lengths[0] and lengths[0] % slowest == 0


def _eliminated(
    build: Builder,
    runs: Sequence[Capture],
    inputs: Inputs,
    axes: Sequence[int | None],
    lengths: tuple[int, int],
    delay: int,
) -> Made:
    """The program of two runs of these lengths."""
    work = Elimination(build, runs[0], runs[1], RULES, lengths)
    ports = []
    for name, leaf, axis, is_state in zip(inputs.names, runs[0].inputs, axes, inputs.states):
        if is_state:
            work.inputs.append(Value(CONST, data=leaf))
            continue
        shape = [n for a, n in enumerate(leaf.shape) if a != axis]
        tensor = build.input(name, leaf, shape)
        ports.append(Port(name, build.view(tensor)))
        if axis is None:
            work.inputs.append(Value(HELD, tensor))
        else:
            work.inputs.append(Value(SEQUENCE, tensor.unsqueeze(axis), axis, EACH_STEP, lengths))
    if runs[0].structure != runs[1].structure:
        raise NotAProgram("its output has more parts the longer the sequence is: stack them to one tensor.")
    eliminate(work)
    outputs = Outputs()
    for leaf in runs[0].outputs:
        value = work.value(leaf) if isinstance(leaf, (Ref, Tensor)) else None
        if isinstance(value, Value) and value.kind == GONE:
            raise NotAProgram(value.why)
        value = None if value is None else _on_time(build, value)
        outputs.add(leaf, None if value is None else _port(build, value, outputs.name, lengths, delay), value)
    program = in_place(build.program(ports, outputs.ports, delay))
    return outputs.made(started(program), inputs, axes, runs[0].structure)


def _on_time(build: Builder, value: Value) -> Value:
    """The output's value, delayed where its first elements would come before step 0, when nobody asks."""
    if value.kind != SEQUENCE or value.clock.first >= 0:
        return value
    late = -(value.clock.first // value.clock.every)
    return delayed(build, value, Clock(value.clock.every, value.clock.first + late * value.clock.every))


def _port(build: Builder, value: Value, name: str, lengths: tuple[int, int], delay: int) -> Port:
    if value.tensor is None:
        assert value.data is not None
        value = value.but(build.constant(value.data))
    assert value.tensor is not None
    if value.kind == CONST and value.axis is None:
        return Port(name, build.view(value.tensor))
    if value.kind in (CONST, HELD) and value.axis is not None:
        return Port(name, build.view(value.tensor.select(value.axis, 0)))
    if value.kind != SEQUENCE:
        return Port(name, build.view(value.tensor), value.clock if value.moves else EACH_STEP)
    assert value.axis is not None
    every, first = value.clock.every, value.clock.first
    # Elements beyond the sequence's own steps read padding at its end alone, and are never due.
    counts = [min(n, -(-steps // every)) for n, steps in zip(value.lengths, lengths)]
    late = {(n - 1) * every + first - (steps - 1) for n, steps in zip(counts, lengths)}
    ahead = max(late)
    if ahead > delay:
        source = f" ({build.source})" if build.source else ""
        if len(late) > 1:
            raise NotAProgram(f"its output{source} needs more look-ahead the longer the sequence is.")
        steps = f"{ahead} step{'s' if ahead > 1 else ''}"
        raise NotAProgram(f"its output needs {steps} of look-ahead{source}: pass delay={ahead}.")
    tensor = value.tensor
    tensor = tensor.select(value.axis, 0) if tensor.shape[value.axis] == 1 else tensor
    return Port(name, build.view(tensor), value.clock)
