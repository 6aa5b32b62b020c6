"""Sparse storage in training: of a matrix the model keeps the values that are there, and their places.

The parameter stays the object that it is, so that optimizers, clipping and schedules go on with it; while it is stored
it holds its values alone, (n,), and so do its gradient and the optimizer's state of it. While the forward of the module
that owns it runs, the dense matrix stands in its place, made for that call. Of what autograd keeps of the matrix until
the backward pass there is only how to make it again, and its gradient is gathered at the places at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .stored_matrix import Matrix
from .stored_owner import Owner

WHOLE = ("LBFGS", "Adafactor", "Muon", "Shampoo", "SparseAdam")  # optimizers that look at more than a weight at a time
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)  # read the weights of their parts themselves


def check_storable(model: nn.Module, root: nn.Module, names: Iterable[str]) -> None:
    """ValueError for a model (`root`: inside its wrappers) whose matrices can't be stored as their values."""
    if model is not root:
        raise _refused(f"the model is inside a {type(model).__name__}", "give the model itself")
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise _refused("torch.distributed is running", "train in one process")
    owners: dict[int, list[str]] = {}
    for name, parameter in root.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in names:
        path, _, local = name.rpartition(".")
        module = root.get_submodule(path)
        several = owners[id(module._parameters[local])]
        if len(several) > 1:
            raise _refused(f"{several[0]} and {several[1]} are one weight", "leave it out by include=")
        if isinstance(module, torch.jit.ScriptModule):
            raise _refused(f"{name} is a weight of torch.jit", "take the Python module")
        if getattr(module, "max_norm", None) is not None:
            raise _refused(f"{name} is changed in place by max_norm", "leave it out by include=")
        parents = [root.get_submodule(path.rsplit(".", up)[0]) for up in range(1, path.count(".") + 1)]
        reader = next((type(p).__name__ for p in [root, *parents, module] if isinstance(p, READERS)), None)
        if reader is not None:
            raise _refused(f"{name} is read by {reader} outside of its own module", "leave it out by include=")


def check_elementwise(optimizer: Optimizer) -> None:
    """ValueError for an optimizer whose step of a weight depends on where in the matrix it stands."""
    if any(base.__name__ in WHOLE for base in type(optimizer).__mro__):
        name = type(optimizer).__name__
        raise _refused(f"{name} looks at whole matrices", "take one that treats each weight by itself (SGD, Adam, ...)")


def _refused(why: str, instead: str) -> ValueError:
    return ValueError(f'Rewire: storage="sparse" is not for this training: {why}.\nTake storage="dense", or {instead}.')


class SparseStorage:
    """The matrices of `masks` (name -> bool, True where a weight is) of the model `root`, stored as long as it lives.

    `watching`: whether the gradients of whole matrices are wanted at this moment.
    """

    def __init__(
        self,
        root: nn.Module,
        masks: Mapping[str, Tensor],
        optimizers: tuple[Optimizer, ...],
        watching: Callable[[], bool],
    ) -> None:
        self._optimizers = optimizers
        self.matrices: dict[str, Matrix] = {}
        owners: dict[nn.Module, list[Matrix]] = {}
        for name, mask in masks.items():
            path, _, local = name.rpartition(".")
            module = root.get_submodule(path)
            matrix = self.matrices[name] = Matrix(module, local, watching)
            owners.setdefault(module, []).append(matrix)
            matrix.given = matrix.parameter.detach()
            matrix.put(mask)
            matrix.become(matrix.at, optimizers)
        self._owners = [Owner(module, matrices) for module, matrices in owners.items()]

    def like(self) -> dict[str, Tensor]:
        """Tensors of the shapes of the matrices, without memory."""
        return {name: matrix.like() for name, matrix in self.matrices.items()}

    def masks(self) -> dict[str, Tensor]:
        return {name: matrix.mask() for name, matrix in self.matrices.items()}

    def magnitudes(self) -> dict[str, Tensor]:
        return {name: matrix.spread(matrix.parameter.detach()).abs_() for name, matrix in self.matrices.items()}

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the whole matrices, where they were watched, once."""
        found = {}
        for name, matrix in self.matrices.items():
            seen, matrix.seen = matrix.seen, None
            none = seen is None or matrix.parameter.grad is None
            found[name] = torch.zeros_like(matrix.like()) if none else seen
        return found

    def move(self, masks: Mapping[str, Tensor]) -> None:
        """Other places for the weights. What is at both places keeps value and state, what grows begins with zeros."""
        for name, mask in masks.items():
            self.matrices[name].move(mask, self._optimizers)

    def load(self, masks: Mapping[str, Tensor]) -> None:
        """The places of a saved run, and the values that the model was last given, by its load_state_dict or before."""
        for name, mask in masks.items():
            matrix = self.matrices[name]
            whole = matrix.dense() if matrix.given is None else matrix.given
            matrix.put(mask)
            matrix.set(matrix.at(whole))
        self.forget()

    def forget(self) -> None:
        """A step is done: the values are those of the training."""
        for matrix in self.matrices.values():
            matrix.given = matrix.loaded = None

    def release(self) -> None:
        """Make the model and the optimizers' states what they would be without."""
        for owner in self._owners:
            owner.detach()
        for matrix in self.matrices.values():
            matrix.become(matrix.spread, self._optimizers)
