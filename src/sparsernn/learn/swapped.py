"""Other weights and forwards while the root's forward runs, and only then.

Hooks on the root put them in place before its forward and take them away after it, so that the model that is saved or
copied is the plain one at all times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Forward = Callable[..., Any]
Place = tuple[nn.Module, str]


class Swapped:
    """Swaps values and forwards in and out around the root's forward.

    `draw` gives what one forward of the root runs on. `swapped`: names of parameters in whose place its
    `weight(name, parameter)` stands; `forwards`: a module -> its forward, made of what was drawn. `owner`: the name of
    the sparsifier; `evaluating`: in evaluation mode too.
    """

    def __init__(
        self,
        root: nn.Module,
        swapped: Iterable[str],
        forwards: Mapping[nn.Module, Callable[[Any], Forward]],
        draw: Callable[[], Any],
        owner: str,
        *,
        evaluating: bool = False,
    ) -> None:
        self.root = root
        self.forwards = dict(forwards)
        self.draw = draw
        self._owner, self._evaluating = owner, evaluating
        owners: dict[int, list[Place]] = {}
        for module in root.modules():
            for local, parameter in module._parameters.items():
                owners.setdefault(id(parameter), []).append((module, local))
        parameters = dict(root.named_parameters())
        self.swapped = {name: owners[id(parameters[name])] for name in swapped}
        self._depth = 0
        self._handles: list[RemovableHandle] = []
        self._saved: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._flat: list[tuple[Any, list[Any]]] = []

    def attach(self) -> None:
        self._handles = [
            self.root.register_forward_pre_hook(_Hook(self.enter, self._owner)),
            self.root.register_forward_hook(_Hook(self.leave, self._owner), with_kwargs=True, always_call=True),
        ]

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def enter(self, module: nn.Module, *_: Any) -> None:
        """Before the root's forward: put everything in place."""
        # A replica of DataParallel shares the hooks, but holds other weights.
        if module is not self.root or not (module.training or self._evaluating):
            return
        self._depth += 1
        if self._depth == 1:
            self.put(self.draw())

    def leave(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
        """After it, also after one that raised (`result` is None then): the parameters are back."""
        if module is not self.root or not self._depth:
            return None
        try:
            # Its own forward was looked up before the hooks ran: what it gave is replaced.
            other = self._depth == 1 and module in self.forwards and result is not None
            return module.forward(*args, **kwargs) if other else None
        finally:
            self._depth -= 1
            if not self._depth:
                self._restore()

    def put(self, given: Any) -> None:
        values: dict[int, Tensor] = {}
        for name, places in self.swapped.items():
            parameter = places[0][0]._parameters[places[0][1]]
            assert parameter is not None
            values[id(parameter)] = given.weight(name, parameter)
            for module, local in places:
                self._saved.append((module, local, parameter))
                module._parameters[local] = values[id(parameter)]  # type: ignore[assignment]
        for module in {module for module, _, _ in self._saved}:
            if isinstance(module, nn.RNNBase):
                recurrent: Any = module
                self._flat.append((recurrent, recurrent._flat_weights))
                recurrent._flat_weights = [values.get(id(w), w) for w in recurrent._flat_weights]
        for module, make in self.forwards.items():
            module.forward = make(given)

    def _restore(self) -> None:
        for module, local, parameter in self._saved:
            module._parameters[local] = parameter
        for module, flat in self._flat:
            module._flat_weights = flat
        for module in self.forwards:
            module.__dict__.pop("forward", None)
        self._saved, self._flat = [], []


def check_alone(kind: str, root: nn.Module) -> None:
    """ValueError if the root's forward runs on other values already."""
    owners = [hook.owner for hook in root._forward_pre_hooks.values() if isinstance(hook, _Hook) and hook.owner]
    if owners:
        who = f"Another {kind}" if owners[0] == kind else owners[0]
        raise ValueError(
            f"{who} is attached to this model and runs its forward on other weights: one at a time.\n"
            "Give both parts to one of them (include= takes several patterns), or call finish() of the other first."
        )


class _Hook:
    """A hook that does nothing in copies of the model: they are plain."""

    def __init__(self, call: Callable[..., Any] | None = None, owner: str = "") -> None:
        self._call, self.owner = call, owner

    def __call__(self, *args: Any) -> Any:
        return self._call(*args) if self._call is not None else None

    def __deepcopy__(self, memo: Any) -> _Hook:
        return _Hook()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, ()
