"""`distill`: a small model learns to give what a large one gives, on inputs without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .._modules import in_eval, unwrap
from ..structure import examples
from .batches import inputs_of
from .progress import shown

Kind = Literal["values", "logits"]


def distillation_loss(student: Any, teacher: Any, kind: Kind = "values", temperature: float = 1.0) -> Tensor:
    """How far the outputs of a student are from a teacher's, a scalar; for training loops of one's own.

    "values": mean squared difference of all floating-point tensors, in shares of the variance of the teacher's.
    "logits": of the first tensor, scores of classes along the last axis, the Kullback-Leibler divergence from the
    teacher's probabilities at `temperature`, times its square (Hinton et al., arXiv 1503.02531). Raises ValueError for
    outputs of other shapes.
    """
    if kind not in ("values", "logits"):
        raise ValueError(f'distill: loss is {kind!r}, expected "values", "logits" or a function of both outputs.')
    ours, theirs = (
        [t for t in examples.tensors_in(each) if t.is_floating_point() and t.numel()] for each in (student, teacher)
    )
    if kind == "logits":
        ours, theirs = ours[:1], theirs[:1]
    if [t.shape for t in ours] != [t.shape for t in theirs] or not ours:
        raise ValueError(
            f"distill: the student gives {[list(t.shape) for t in ours]} and the teacher "
            f"{[list(t.shape) for t in theirs]}: give loss= a function that compares them."
        )
    if kind == "logits":
        log_p, log_q = ((t[0] / temperature).log_softmax(-1).flatten(0, -2) for t in (theirs, ours))
        return nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * temperature**2
    return torch.stack([_of_values(a, b) for a, b in zip(ours, theirs)]).mean()


def _of_values(ours: Tensor, theirs: Tensor) -> Tensor:
    theirs = theirs.detach()
    return (ours - theirs).square().mean() / theirs.var(correction=0).clamp_min(torch.finfo(theirs.dtype).tiny)


def distill(
    student: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Any],
    steps: int = 1000,
    *,
    loss: Kind | Callable[[Any, Any], Tensor] = "values",
    temperature: float = 1.0,
    hidden: Mapping[str, Tensor] | None = None,
    optimizer: Optimizer | None = None,
    inputs: Callable[[Any], Any] | None = None,
) -> nn.Module:
    """Train `student`, in place, to give what `teacher` gives on `batches`; it is returned.

    - `batches`: as for `fold`: inputs, a DataLoader, labels left out; begun anew as often as it takes.
    - `loss`: see `distillation_loss`; or a function of the outputs of both.
    - `hidden`: path of a recurrent layer or other module that both have -> which channels of the teacher's output, bool
      or indices, the student has in its own (`~folded.removed["lstm.l0"]`): these are compared as well, as values.
    - `optimizer`: of the student; by default Adam, its step from .001 down to 0 on a line. Sparsifiers attach to one of
      your own.

    The teacher runs in evaluation mode on a copy, the student in the mode that it is in. Raises ValueError where
    batches run out or the loss is not finite.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"distill: steps is {steps!r}, expected a whole number, at least 1.")
    compare = loss if callable(loss) else lambda ours, theirs: distillation_loss(ours, theirs, loss, temperature)
    model, master = unwrap(student), in_eval(unwrap(teacher))
    seen = [_Outputs(each, hidden or {}, name) for each, name in ((model, "student"), (master, "teacher"))]
    own = torch.optim.Adam(model.parameters(), lr=0.001) if optimizer is None else optimizer
    try:
        for step, call in enumerate(shown(_again(batches, model, inputs, steps), "distill", steps)):
            if optimizer is None:
                own.param_groups[0]["lr"] = 0.001 * (1 - step / steps)
            with torch.no_grad():
                wanted = examples.run(master, examples.fresh(call), step + 1)
            value = compare(examples.run(student, call, step + 1), wanted)
            for path, index in (hidden or {}).items():
                ours = seen[0].found[path]
                theirs = seen[1].found[path][..., index.to(ours.device)]
                value = value + distillation_loss(ours, theirs)
            if not bool(value.isfinite()):
                raise ValueError(
                    f"distill: the loss of step {step + 1} is not finite: look at this batch, or lower lr."
                )
            own.zero_grad()
            value.backward()
            own.step()
    finally:
        for each in seen:
            each.remove()
    return student


class _Outputs:
    """Keeps what some modules gave last: the first tensor of it."""

    def __init__(self, model: nn.Module, paths: Iterable[str], whose: str) -> None:
        self.found: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        if odd := [path for path in paths if path not in modules]:
            raise ValueError(f"distill: hidden names {odd[0]!r}, which is no module of the {whose}.")
        self._handles = [modules[path].register_forward_hook(self._keep(path)) for path in paths]

    def _keep(self, path: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self.found[path] = next(examples.tensors_in(output))

        return keep

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _again(
    batches: Iterable[Any], model: nn.Module, inputs: Callable[[Any], Any] | None, steps: int
) -> Iterator[examples.Call]:
    """The calls of `steps` batches, begun anew where they end."""
    done = 0
    while done < steps:
        before = done
        for call in inputs_of(batches, model, inputs, "distill"):
            yield call
            done += 1
            if done == steps:
                return
        if done == before:
            what = "is empty" if done == 0 else f"ended after {done} of {steps} steps and gives nothing more"
            raise ValueError(f"distill: batches {what}; give a list or a DataLoader, which can be begun anew.")
