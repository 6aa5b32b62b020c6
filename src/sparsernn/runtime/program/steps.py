"""The step program of a model that takes one step itself: its states are arguments, buffers or attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_unflatten

from ..._modules import copied
from .builder import Builder
from .calls import NotAProgram, Ref
from .capture import Capture, capture
from .constants import shown
from .eliminate import Elimination
from .examples import Inputs
from .made import Made, Outputs
from .program import EACH_STEP, Port
from .rules import RULES
from .simplify import in_place
from .values import NOW, Value

States = Mapping[str, int | str]


def is_step(run: Capture) -> bool:
    """Whether the model remembers something from call to call in buffers or attributes, and reads it again."""
    return bool(_changed(run))


def _changed(run: Capture) -> dict[int, str]:
    """Tensors of the model that a call reads and changes, or puts another in the place of: id -> path."""
    leaves = [v for call in run.calls for v in tree_leaves(list(call.args.values()))]
    read = {id(v) for v in leaves if isinstance(v, Tensor)} & set(run.before)
    written = {id(shown(run.calls, next(iter(c.args.values())))) for c in run.calls if c.name.endswith("_")}
    return {i: run.names[i] for i in read if run.names[i] in run.changed or i in written}


def _counters(model: nn.Module, inputs: Inputs) -> list[str]:
    """Numbers and truths in attributes, by path, that the second call leaves other than the first did."""
    own, found = copied(model), []
    for _ in range(2):
        args, kwargs = inputs.arguments([t.clone() for t in inputs.tensors])
        with torch.no_grad():
            own(*args, **kwargs)
        found.append({
            f"{path}.{name}".removeprefix("."): value
            for path, module in own.named_modules() for name, value in vars(module).items()
            if isinstance(value, (int, float))
        })  # fmt: skip
    return [path for path, value in found[1].items() if found[0].get(path) != value]


def step_program(model: nn.Module, inputs: Inputs, states: States) -> Made:
    """states: the name of an input -> the place or key of what becomes of it among the model's outputs."""
    if counters := _counters(model, inputs):
        raise NotAProgram(
            f"it changes {', '.join(counters)} from step to step, in Python, where no step program sees it: make it a "
            "tensor in a buffer, or leave it out of forward."
        )
    run = capture(copied(model), [t.clone() for t in inputs.tensors], inputs.arguments)
    late = [path for path in run.changed if path not in run.names.values()]
    if late:  # an attribute that the first call makes
        model = copied(model)
        args, kwargs = inputs.arguments([t.clone() for t in inputs.tensors])
        with torch.no_grad():
            model(*args, **kwargs)
        run = capture(copied(model), [t.clone() for t in inputs.tensors], inputs.arguments)
    return _made(run, inputs, states, set(late))


def _made(run: Capture, inputs: Inputs, states: States, late: set[str]) -> Made:
    build = Builder()
    work = Elimination(build, run, run, RULES, (0, 0))
    becomes = _becomes(run, inputs, states)
    ports, carries = [], []
    for number, (name, tensor) in enumerate(zip(inputs.names, inputs.tensors)):
        if number in becomes:
            memory = build.state(name, tensor.shape, tensor, tensor)
            carries.append((memory, becomes[number]))
        else:
            memory = build.input(name, tensor, tensor.shape)
            ports.append(Port(name, build.view(memory)))
        work.inputs.append(Value(NOW, memory, None, EACH_STEP))
    for i, path in _changed(run).items():
        before = run.before[i]
        memory = build.state(path, before.shape, before, torch.zeros_like(before) if path in late else before)
        work.held[i] = Value(NOW, memory, None, EACH_STEP)
        if path in run.changed:
            carries.append((memory, run.changed[path]))
    work.run()
    outputs, ours = Outputs(), {build.view(memory).buffer for memory, _ in carries}
    for leaf in run.outputs:
        value = work.value(leaf) if isinstance(leaf, (Ref, Tensor)) else None
        port = None if value is None else Port(outputs.name, build.view(_kept(build, _shown(build, value), ours)))
        outputs.add(leaf, port, value)
    _carried(build, work, run, carries)
    program = in_place(build.program(ports, outputs.ports))
    rest = Inputs(
        inputs.names,
        inputs.tensors,
        inputs.fixed,
        inputs.structure,
        tuple(n in becomes for n in range(len(inputs.names))),
    )
    return outputs.made(program, rest, [None] * len(inputs.names), run.structure, becomes)


def _shown(build: Builder, value: Value) -> Tensor:
    if value.tensor is None:
        assert value.data is not None
        return build.constant(value.data)
    return value.tensor


def _kept(build: Builder, tensor: Tensor, ours: set[str]) -> Tensor:
    """What a state shows before the step's end, when `ours` become what the step made of them."""
    return build.copied(tensor, EACH_STEP) if build.view(tensor).buffer in ours else tensor


def _carried(build: Builder, work: Elimination, run: Capture, carries: list[tuple[Tensor, Any]]) -> None:
    """The states become what the step made of them, all at once: none is read when it is new already."""
    new = []
    for memory, item in carries:
        value = work.value(run.outputs[item] if isinstance(item, int) else item)
        if not isinstance(value, Value) or _shown(build, value).shape != memory.shape:
            raise NotAProgram(f"state {build.view(memory).buffer} has another shape after a step than before it.")
        new.append((memory, _shown(build, value)))
    ours = {build.view(memory).buffer for memory, _ in carries}
    crossed = [_kept(build, t, ours) for _, t in new]
    for (memory, old), tensor in zip(new, crossed):
        if build.view(old) != build.view(memory):
            build.emit("copy", (tensor,), (memory,), EACH_STEP)


def _becomes(run: Capture, inputs: Inputs, states: States) -> dict[int, int]:
    """Number of an input tensor that is a state -> number of the output leaf that it becomes."""
    numbered = tree_unflatten(list(range(len(run.outputs))), run.structure)
    found: dict[int, int] = {}
    for name, place in {**_same_keys(inputs, numbered), **states}.items():
        mine = [n for n, own in enumerate(inputs.names) if own == name or own.startswith(f"{name}.")]
        if not mine:
            raise ValueError(f"stream: states names {name!r}, the model's inputs are {', '.join(inputs.names)}.")
        try:
            theirs = tree_leaves(numbered if numbered == 0 else numbered[place])
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"stream: states: the model's output has no {place!r} for {name!r}.") from None
        if len(mine) != len(theirs):
            raise ValueError(f"stream: {name!r} is {len(mine)} tensors, output {place!r} is {len(theirs)}.")
        found |= dict(zip(mine, theirs))
    return found


def _same_keys(inputs: Inputs, numbered: Any) -> dict[str, Any]:
    """An input that is a dict, and an output that is one with the same keys."""
    places = (
        numbered.items()
        if isinstance(numbered, dict)
        else enumerate(numbered)
        if isinstance(numbered, (tuple, list))
        else ()
    )
    found: dict[str, Any] = {}
    for root in {name.split(".")[0] for name in inputs.names if "." in name}:
        keys = {name.split(".")[1] for name in inputs.names if name.startswith(f"{root}.")}
        if all(key.isdigit() for key in keys):
            continue
        for place, value in places:
            if isinstance(value, dict) and set(map(str, value)) == keys:
                found[root] = place
    return found
