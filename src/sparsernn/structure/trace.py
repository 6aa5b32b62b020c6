"""`trace`: every recurrent layer of a model, its units, and who reads each of them, found by running the model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._modules import in_eval, kept_by_functions, unwrap
from . import examples
from .build import build, computed_layers, declare_cells
from .cells import RecurrentLayer, has_computed, made_plain_by, recurrent_layers, unmanaged_modules
from .channels import Because, Channels, Reason
from .check import find_unknown_readers
from .classes import Classes
from .groups import Level, SliceGroups
from .notes import undeclared_cells, unused_modules, why_none
from .refusals import refuse
from .runs import results
from .structure import Kept, State, Structure, unreached_note
from .tracer import Tracer, unseen


def trace(
    model: nn.Module, example_inputs: Any, strict: bool = False, *, carried_states: bool = False, check: bool = True
) -> Structure:
    """Find the recurrent units of `model` and their readers by running it once on each example.

    The model itself is not changed: a copy runs in eval mode without gradients, and random state is restored.

    - `example_inputs`: a tensor, a tuple of arguments, a dict of keywords, or a list of such examples.
    - `strict`: raise RuntimeError where an operation can't be followed, instead of keeping the units.
    - `carried_states`: states (h_n, c_n) that the model returns are only ever fed back into it.
    - `check`: prove the result by numbers as well (a few more runs in float64).

    Raises TypeError for anything but a module, ValueError for a model without recurrent layers and for examples that
    the model can't take.
    """
    model = unwrap(model)
    calls = examples.calls(example_inputs)
    refuse(model, calls)
    layers = recurrent_layers(model)
    with quiet():
        recorded = _record(model, calls, layers, carried_states)
        structure = _assemble(recorded, layers, model)
        if not structure.unit_sets and not recorded.channels.looped:
            raise ValueError(why_none(model, structure))
        if check and bool(structure.classes.free.any()):
            culprits = find_unknown_readers(model, calls, structure)
            if culprits:
                recorded = replace(recorded, failed=culprits)
                structure = _assemble(recorded, layers, model)
    for note in unreached_note(structure.unreached):
        warnings.warn(f"trace: {note}.", stacklevel=2)
    for k in structure.kept if strict else ():
        if k.because in _REFUSED:
            raise RuntimeError(
                f"{k.unit_set}: {len(k.units)} units can't be followed: {k.reason} ({k.operation} at {k.where}).\n"
                "Without strict=True they are kept."
            )
    for r in structure.lost if strict else ():
        raise RuntimeError(
            f"A cell written by hand can't be followed: {r.text} ({r.operation} at {r.where}).\n"
            "Without strict=True all of its units are kept."
        )
    return structure


_REFUSED = (Because.NOT_FOLLOWED, Because.CHECK_FAILED)  # by strict=True


@dataclass(frozen=True)
class _Recorded:
    channels: Channels
    names: tuple[str, ...]
    kept_weights: Mapping[int, Reason]
    untouched: tuple[str, ...]  # parameters that no operation used
    states: Mapping[tuple[int, int], State]  # channels of the states handed out, with carried_states
    failed: Mapping[int, str] = field(default_factory=dict)  # class -> why the numeric check keeps it


def _record(
    model: nn.Module, calls: list[examples.Call], layers: tuple[RecurrentLayer, ...], carried: bool
) -> _Recorded:
    constants: list[Tensor] = []
    while True:
        channels, kept, strangers, used = Channels(), {}, [], set()
        names: tuple[str, ...] = ()
        states: dict[tuple[int, int], State] = {}
        for number, call in enumerate(calls, start=1):
            tracer = _run_one(model, call, number, channels, constants, carried)
            names = tuple(tracer.numbering.names[: 1 + len(tracer.numbering.of)])  # numbers beyond are aliases
            kept.update({n: r for n, r in tracer.kept_weights.items() if n not in kept})
            used |= tracer.used
            states |= tracer.states
            channels.looped |= tracer.feedback.looped
            channels.carried += tracer.feedback.carried
            strangers += [(t, reason) for t, reason in tracer.strangers if not any(t is c for c in constants)]
        if not strangers or constants:
            # What is new again in a second run was made on the way by something that torch did not show us.
            if strangers:
                channels.keep(torch.arange(1, channels.count), strangers[0][1])
            break
        constants = [t for t, _ in strangers]
    declare_cells(channels, layers, {name: n for n, name in enumerate(names)})
    untouched = tuple(name for n, name in enumerate(names) if n and n not in used)
    return _Recorded(channels, names, kept, untouched, states)


def _run_one(
    model: nn.Module, call: examples.Call, number: int, channels: Channels, constants: list[Tensor], carried: bool
) -> Tracer:
    twin = in_eval(model)
    named = [(n, t) for n, t in (*twin.named_parameters(), *twin.named_buffers()) if t is not None]
    names, tensors = [n for n, _ in named], [t for _, t in named]
    same = [examples.fresh(call), examples.fresh(call)]
    holders = [*(vars(m) for m in twin.modules()), kept_by_functions(twin)]
    loose = [t for holder in holders for t in examples.tensors_in(holder)]
    tracer = Tracer(names, tensors, channels, [*constants, *loose, *examples.tensors_in(same)])
    for result in results(twin, same, number, within=tracer):
        for place, leaf in enumerate(examples.leaves_in(result)):
            found = [_hand_out(tracer, tensor, carried, type(model).__name__) for tensor in examples.tensors_in(leaf)]
            rows = [row for row in found if row is not None]
            if rows and len(rows) == len(found):
                units = rows[0] if isinstance(leaf, Tensor) else tuple(rows)
                tracer.states.setdefault((number, place), units)
    return tracer


def _hand_out(tracer: Tracer, tensor: Tensor, carried: bool, owner: str) -> Tensor | None:
    """Keep what is handed to the caller; the label of a carried state (its units may go)."""
    if not tracer.recognise(tensor):
        tracer.strangers.append((tensor, Reason(unseen(tensor), "output", owner, Because.NOT_FOLLOWED)))
        return None
    shadow = tracer.store.get(tensor)
    if shadow.label is None:
        return None
    if carried and shadow.state:
        return shadow.label
    text = "a state handed to the caller" if shadow.state else "handed to the caller"
    advice = "if it is only fed back into the model, pass carried_states=True" if shadow.state else ""
    tracer.channels.keep(shadow.label, Reason(text, "output", owner, Because.MEANING, advice))
    return None


def _assemble(recorded: _Recorded, layers: tuple[RecurrentLayer, ...], model: nn.Module) -> Structure:
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    classes, reasons = build(recorded.channels, recorded.names, layers, recorded.kept_weights, values)
    for c, why in recorded.failed.items():
        reasons.setdefault(c, []).append(
            Reason(f"the numeric check failed: {why}", "check", "trace", Because.CHECK_FAILED)
        )
        classes.free[c] = False
    for c, reason in computed_layers(model, classes).items():
        reasons.setdefault(c, []).insert(0, reason)
        classes.free[c] = False
    kept: list[Kept] = []
    shown: set[Reason] = set()
    for name, of_unit in classes.sets.items():
        never = torch.nonzero(of_unit < 0)[:, 0]
        if len(never):
            kept.append(Kept(name, never, "no example reached it", "none", "example_inputs", Because.NOT_REACHED))
        found: dict[Reason, list[int]] = {}
        for unit, c in enumerate(of_unit.tolist()):
            if c >= 0 and not bool(classes.free[c]):
                first = min(reasons.get(c, [_UNKNOWN]), key=lambda r: r.because not in _REFUSED)
                found.setdefault(first, []).append(unit)
        shown |= found.keys()
        kept += [
            Kept(name, torch.tensor(units), r.text, r.operation, r.where, r.because, r.advice)
            for r, units in found.items()
        ]
    ties = tuple(
        (a, b, operation, where)
        for (ka, kb), (operation, where) in recorded.channels.ties.items()
        if (a := _block_name(ka, recorded.names, layers)) and (b := _block_name(kb, recorded.names, layers)) and a != b
    )
    notes = [
        f"{path}: its weights are not plain parameters, so it is kept; "
        f"{made_plain_by(path, model.get_submodule(path))} makes them plain"
        for path in unmanaged_modules(model)
    ]
    inside = (r for found in reasons.values() for r in found if r.operation != "output")
    lost = dict.fromkeys(r for r in inside if r not in shown)
    declared = {name for layer in layers for name in layer.unit_sets}
    own = [name for name in classes.sets if name not in declared]
    unfollowed = [r for r in lost if r.because is Because.NOT_FOLLOWED]
    notes += [f"{r.text} ({r.operation} at {r.where}): what it takes in is kept" for r in unfollowed[:8]]
    ours = {path for path, module in model.named_modules() if _needs_no_declaration(module)}
    undeclared = [name for name in own if name.rpartition(".")[0] not in ours]
    lost_loops: list[Reason] = []
    if undeclared or not own:
        known = {name for layer in layers for name in (*layer.parameters(), layer.projection)}
        loops = {n: site for n, site in recorded.channels.looped.items() if recorded.names[n] not in known}
        notes += undeclared_cells(loops, recorded.names, undeclared, list(lost))
        lost_loops = unfollowed if loops and not undeclared else []
    notes += [
        f"{', '.join(names)}: a subclass of torch's layer has one width, so of each as many units go as of the "
        "one with the fewest dead units"
        for names in classes.equal
    ]
    return Structure(
        layers=layers,
        unit_sets={name: len(of_unit) for name, of_unit in classes.sets.items()},
        kept=tuple(kept),
        remarks=tuple(notes),
        unreached=tuple(unused_modules(model, recorded.untouched)),
        lost=tuple(lost_loops),
        ties=ties,
        classes=classes,
        unused=frozenset(recorded.untouched),
        states={at: _classes_of(state, classes.channel_class) for at, state in recorded.states.items()},
        shapes={n: tuple(t.shape) for n, t in (*model.named_parameters(), *model.named_buffers())},
    )


def _needs_no_declaration(module: nn.Module) -> bool:
    torchs = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
    return type(module).__module__.startswith("sparsernn.nn") or (torchs and has_computed(module))


def _classes_of(state: State, channel_class: Tensor) -> State:
    return channel_class[state] if isinstance(state, Tensor) else tuple(channel_class[row] for row in state)


_UNKNOWN = Reason("nothing feeds back into it", "none", "?", Because.MEANING)


def _block_name(key: Any, names: tuple[str, ...], layers: tuple[RecurrentLayer, ...]) -> str:
    kind, number, *_ = key
    for layer in layers:
        if kind in ("unit", "projected") and names[number] in layer.parameters("hh"):
            return layer.unit_sets[kind == "projected" and len(layer.unit_sets) > 1]
    return names[number] if kind in ("row", "parameter") else ""


@contextmanager
def quiet():
    """No gradients, random state restored, compiled parts run as plain Python."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    # Without dynamo nothing is compiled, and loading it would take seconds.
    compiled = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(devices=devices),
        stance,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="LSTM with projections is not supported")
        yield


__all__ = ["Classes", "Kept", "Level", "SliceGroups", "Structure", "trace"]
