"""Scores that run the model, for nets that are pruned before any training: SNIP, GraSP on batches, SynFlow on none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .._modules import in_eval, set_precision
from ..structure import examples
from ..structure.trace import quiet
from .flow import linear
from .scores import Reduce, Score

Loss = Callable[[nn.Module, Any], Tensor]


class _OfLoss(Score):
    """Base: gradients of the mean of `loss(model, batch)` over `batches`, of a copy in evaluation mode."""

    reduce: Reduce = "sum"
    runs = True

    def __init__(self, batches: Iterable[Any], loss: Loss) -> None:
        kind = type(self).__name__
        if not callable(loss):
            raise TypeError(f"{kind}: loss is {loss!r}, expected a function loss(model, batch) that gives a scalar.")
        if isinstance(batches, (str, Tensor)) or not isinstance(batches, Iterable):
            raise TypeError(f"{kind}: batches is a {type(batches).__name__}, expected an iterable of batches.")
        super().__init__()
        self._batches, self._loss = batches, loss

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batches, loss)"

    def of_model(self, model: nn.Module, names: Sequence[str], example_inputs: Any) -> Mapping[str, Tensor]:
        with _copy(model, names) as (twin, weights):
            batches = list(self._batches)
            if not batches:
                raise ValueError(f"{type(self).__name__}: there is no batch (an iterator is empty the second time).")
            found = self._score(twin, batches, list(weights.values()))
        return dict(zip(weights, found))

    def _score(self, model: nn.Module, batches: Sequence[Any], weights: Sequence[Tensor]) -> list[Tensor]:
        """The score of each element of `weights`, from the gradients of the loss."""
        raise NotImplementedError(f"{type(self).__name__} defines no _score(model, batches, weights).")

    def _gradient(
        self, model: nn.Module, batches: Sequence[Any], weights: Sequence[Tensor], along: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """The mean gradient over batches and processes, or that of its product with `along`: Hessian times it."""
        total = [torch.zeros_like(weight) for weight in weights]
        for batch in batches:
            loss = self._loss(model, batch)
            if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.requires_grad:
                raise TypeError(
                    f"{type(self).__name__}: loss(model, batch) gave {type(loss).__name__}"
                    f"{list(loss.shape) if isinstance(loss, Tensor) else ''}, expected a scalar with gradients."
                )
            found = torch.autograd.grad(loss, weights, create_graph=along is not None, materialize_grads=True)
            if along is not None:
                product = torch.stack([(g * a).sum() for g, a in zip(found, along)]).sum()
                found = torch.autograd.grad(product, weights, materialize_grads=True)
            for value, gradient in zip(total, found):
                value.add_(gradient.detach(), alpha=1 / len(batches))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for value in total:
                torch.distributed.all_reduce(value)
                value.div_(torch.distributed.get_world_size())
        return total


class SNIP(_OfLoss):
    """|w dL/dw|: what the loss feels of a weight before any training (Lee et al., arXiv 1810.02340).

    Needs batches and a loss: `loss(model, batch)` gives a scalar. The gradient is that of the mean over `batches`, of a
    copy in evaluation mode, and of the mean over all processes of a parallel training. Raises TypeError for a loss that
    gives no scalar with gradients, ValueError where there is no batch.
    """

    def _score(self, model: nn.Module, batches: Sequence[Any], weights: Sequence[Tensor]) -> list[Tensor]:
        return [(w * g).abs().detach() for w, g in zip(weights, self._gradient(model, batches, weights))]


class GraSP(_OfLoss):
    """w (H g), with the gradient g and the Hessian H of the loss in the governed weights.

    Those go first without which the gradient's norm is largest (Wang et al., arXiv 2002.07376). Needs batches and a
    loss, as `SNIP`, and raises as it does; the loss is differentiated twice.
    """

    def _score(self, model: nn.Module, batches: Sequence[Any], weights: Sequence[Tensor]) -> list[Tensor]:
        gradient = self._gradient(model, batches, weights)
        product = self._gradient(model, batches, weights, along=gradient)
        return [(w * p).detach() for w, p in zip(weights, product)]


class SynFlow(Score):
    """w dR/dw, where R is what inputs of ones give through the absolute weights.

    That is a weight's part of all paths from inputs to outputs (Tanaka et al., arXiv 2006.05467). Needs no data and no
    loss, only the shape of `example_inputs`. Activations are left out, the gates of a layer add up, time is as long as
    in the example (a few steps do), and an embedding gives the mean of its rows; norms and biases play no part. Meant
    for many rounds before training, where no layer is cut through: of `Prune(..., score=SynFlow(),
    schedule=Iterative(100, every=1))` a hundred times `step()`, then `attach(optimizer)`. Raises ValueError
    without `example_inputs`.
    """

    reduce: Reduce = "sum"
    runs = True

    def of_model(self, model: nn.Module, names: Sequence[str], example_inputs: Any) -> Mapping[str, Tensor]:
        """Parameter -> its scores, by one run of the model on ones."""
        if example_inputs is None:
            raise ValueError("SynFlow runs the model once, on ones: give example_inputs, got None.")
        with _copy(model, names) as (twin, weights):
            set_precision(twin, torch.float64)
            for parameter in twin.parameters():
                parameter.detach().abs_()
            total = torch.zeros((), dtype=torch.float64)
            with linear(twin):
                for number, call in enumerate(examples.calls(example_inputs), start=1):
                    output = examples.run(twin, _ones(examples.fresh(call, torch.float64), twin), number)
                    found = [t for t in examples.tensors_in(output) if t.is_floating_point() and t.requires_grad]
                    total = total + torch.stack([t.sum() for t in found]).sum().to(total.device)
            gradients = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
        scores = {name: (w * g).detach() for (name, w), g in zip(weights.items(), gradients)}
        if not all(bool(value.isfinite().all()) for value in scores.values()):
            raise ValueError(
                "SynFlow: the sum over paths is too large for float64: give example_inputs of fewer time steps.\n"
                "Cells that multiply what they compute (hand-written ones, RHN) have no such sum beyond a few steps."
            )
        return scores


@contextmanager
def _copy(model: nn.Module, names: Sequence[str]) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    """A copy in evaluation mode that can be differentiated twice, and its weights of these names."""
    with (
        quiet(),
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False),  # no second derivatives, no derivatives in evaluation mode
    ):
        twin = in_eval(model)
        parameters = dict(twin.named_parameters())
        for parameter in parameters.values():
            parameter.grad = None
        weights: dict[str, Tensor] = {name: parameters[name].requires_grad_(True) for name in names}
        yield twin, weights


def _ones(call: examples.Call, model: nn.Module) -> examples.Call:
    device = next(model.parameters()).device

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return torch.ones_like(leaf, device=device) if leaf.is_floating_point() else leaf.to(device)

    return tree_map(one, call)
