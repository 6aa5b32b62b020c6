"""Random cases (see runtime_cases.py) run and judged.

The oracle is the model in float64, with the weights rounded where the layout rounds them. All buffers that the kernels
are given stand between guards.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from runtime_cases import Case, each, flat, make
from runtime_guards import guarded
from sparsernn.runtime import costs, threads
from sparsernn.runtime.held import Precision
from sparsernn.runtime.layers import accelerate
from sparsernn.runtime.layouts import multiplied, offered


def _runs(fast: Any, case: Case) -> Callable[[tuple[Any, ...]], Any]:
    """How the case runs: called with its arguments, or step by step."""
    if case.form == "gated":
        return lambda arguments: fast[0](*arguments)
    if case.form != "stream":
        return lambda arguments: fast(*arguments)
    time = 1 - case.batch_axis  # type: ignore[operator]

    def steps(arguments: tuple[Any, ...]) -> Tensor:
        (x,) = arguments
        running = fast.stream(x.shape[case.batch_axis], case.arguments[0])
        return torch.stack([running.step(step).clone() for step in x.unbind(time)], time)

    return steps


def oracle(case: Case, fast: Any) -> tuple[nn.Module, bool]:
    """The model with its matrices rounded as the kernels have them, float32, and whether that is exact."""
    model = copy.deepcopy(case.model[0] if case.form == "gated" else case.model)  # type: ignore[index]
    if case.precision == "int8":  # weights are rounded in every layout, also where products are of float32
        return model, False
    if multiplied(case.precision) == "float32":
        return model, True
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2 and not (case.form == "stream" and name == "front.weight" and embeds(model)):
                p.copy_(p.to(torch.bfloat16).float())
    return model, True


def embeds(model: Any) -> bool:
    return isinstance(model.front, nn.Embedding)


def agree(case: Case, got: Any, fast: Any) -> None:
    """`got` is as near to float64 as torch's float32 is, four times; in int8 near it."""
    model, exact = oracle(case, fast)
    with torch.no_grad():
        plain = flat(_call(model, case.arguments))
        want = flat(_call(copy.deepcopy(model).double(), each(case.arguments, _double)))
    found = flat(got)
    assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in plain]
    for g, w, p in zip(found, want, plain):
        if g.numel():
            near = 4 * float((p - w).abs().max())
            bound = max(1e-5, near) if exact else 0.1 * max(1.0, float(w.abs().max()))
            off = float((g - w).abs().max())
            assert off <= bound, f"off by {off:.2e}, at most {bound:.2e} is allowed"


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _call(model: Any, arguments: Any) -> Any:
    return model(*arguments)


@contextmanager
def forced(layout: str | None) -> Iterator[None]:
    """Every matrix gets `layout`."""
    if layout is None:
        yield
        return
    by_cost = costs.choose

    def chosen(counts: Any, inputs: int, precision: Precision = "float32", table: Any = None) -> costs.Choice:
        # Int8 streams are judged by a copy in float32, which has layouts of its own.
        return choice(layout) if layout in offered(precision) else by_cost(counts, inputs, precision, table)

    with patch.object(costs, "choose", chosen):
        yield


def choice(layout: str) -> costs.Choice:
    return costs.Choice(layout, 0.0)


@torch.no_grad()
def check(seed: int) -> int:
    """Run the case of `seed` and judge it, and count the calls of kernels; an AssertionError names seed and case."""
    case = make(seed)
    try:
        return _check(case, random.Random(seed))
    except Exception as error:
        raise AssertionError(f"case {seed}, {case}: {type(error).__name__}: {error}") from error


def _check(case: Case, draw: random.Random) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no int8 here; projections without oneDNN
        fast = accelerate(case.model, case.precision)
    run = _runs(fast, case)
    with forced(case.layout), guarded(draw) as guards:
        before = [t.clone() for t in flat(case.arguments)]
        got = run(case.arguments)
        assert len(guards.whole) > 2, "no guards were set"
        assert all(torch.equal(a, b) for a, b in zip(before, flat(case.arguments))), "an argument was changed"
        kept = [t.clone() for t in flat(got)]
        if draw.random() < 0.3:
            _same_bits_in_threads(run, case, kept)
        if draw.random() < 0.3 and case.batch_axis is not None and case.arguments[0].is_floating_point():
            _nan_stays_in_its_row(run, case, kept[0], draw)
    agree(case, kept if case.form == "stream" else got, fast)
    assert all(torch.equal(a, b) for a, b in zip(kept, flat(got))), "a later call changed an earlier result"
    if case.form not in ("stream", "gated") and draw.random() < 0.1:
        _nothing(fast, case)
    return guards.calls


def _same_bits_in_threads(run: Callable[[Any], Any], case: Case, kept: list[Tensor]) -> None:
    count = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            with patch.object(threads, "WORTH", 1.0):
                again = flat(run(case.arguments))
            assert all(torch.equal(a, b) for a, b in zip(kept, again)), f"other bits with {number} threads"
    finally:
        torch.set_num_threads(count)


def _nan_stays_in_its_row(run: Callable[[Any], Any], case: Case, kept: Tensor, draw: random.Random) -> None:
    axis: int = case.batch_axis  # type: ignore[assignment]
    x = case.arguments[0].clone()
    row = draw.randrange(x.shape[axis])
    one = x.select(axis, row).view(-1, x.shape[-1]) if x.dim() < 3 else x.select(axis, row)
    bad = draw.choice((float("nan"), float("inf")))
    one[draw.randrange(len(one)), draw.randrange(x.shape[-1])] = bad
    out = flat(run((x, *case.arguments[1:])))[0]
    others = torch.tensor([n for n in range(x.shape[axis]) if n != row], dtype=torch.long)
    where = axis if out.dim() > 1 else 0
    same = torch.equal(out.index_select(where, others), kept.index_select(where, others))
    assert same, "another row of the batch changed"
    if case.full and bad != bad:
        model = case.model
        lost = flat(_call(model, (x, *case.arguments[1:])))[0].isnan()
        assert not out[lost].isfinite().any(), "a NaN was lost"


def _nothing(fast: Any, case: Case) -> None:
    """Batches of none give empty results of torch's shapes, sequences of none are refused."""
    model: Any = case.model
    if case.form == "cell":
        shapes = [[t.shape for t in flat(m(torch.zeros(0, model.input_size)))] for m in (fast, model)]
        assert shapes[0] == shapes[1]
        return
    size = (0, 3) if model.batch_first else (3, 0)
    shapes = [[t.shape for t in flat(m(torch.zeros(*size, model.input_size)))] for m in (fast, model)]
    assert shapes[0] == shapes[1], "an empty batch has other shapes"
    size = (2, 0) if model.batch_first else (0, 2)
    for m in (fast, model):
        try:
            m(torch.zeros(*size, model.input_size))
        except RuntimeError:
            continue
        raise AssertionError("a sequence without steps was taken")


def check_many(first: int, last: int) -> int:
    """The cases of the numbers from `first` to `last` - 1: how many calls of kernels they made."""
    return sum(check(seed) for seed in range(first, last))
