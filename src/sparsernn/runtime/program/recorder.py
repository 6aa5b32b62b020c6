"""Notes every operation that torch is given, as its callers gave it, while it works out the results.

Operations are seen before autograd and before torch takes them apart (its `PreDispatch` key), so that an LSTM, a
convolution or a norm is one call each. Torch leaves that place to its own tracers' modes, of which this is a subclass.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from traceback import walk_stack
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import HigherOrderOperator
from torch.fx.experimental.proxy_tensor import PreDispatchTorchFunctionMode, ProxyTorchDispatchMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .calls import Call, NotAProgram, Ref, by_name, flat

_TORCH = os.path.dirname(torch.__file__)
_HERE = os.path.dirname(__file__)
_PACKAGES = os.path.dirname(_TORCH)
# Operations that torch makes of others, which have rules where these have none.
_COMPOSED = ("diff", "outer", "inner", "tensordot")
_AUTOCAST = torch.amp.autocast_mode._enter_autocast, torch.amp.autocast_mode._exit_autocast
_FUNCTORCH = "torch._functorch.predispatch"
_READ = torch.Tag.data_dependent_output
_RANDOM = torch.Tag.nondeterministic_seeded


class Recorder(ProxyTorchDispatchMode):
    """While entered, `calls` grows. Tensors are known by identity: those of `inputs` and what calls gave are the
    run's, all others constants. `kept`: ids of those that the model keeps in buffers and attributes."""

    def __init__(self, inputs: Sequence[Tensor], kept: Iterable[int]) -> None:
        # Not what its own class does, which loads torch's compiler: two seconds.
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self.enter_stack = []
        self.calls: list[Call] = []
        self._before = set(kept)
        # Weak, since torch copies a tensor that it has just made (zeros, say) if somebody else holds it.
        self._refs = WeakTensorKeyDictionary({value: Ref(n, input=True) for n, value in enumerate(inputs)})
        self._numbers: set[Ref] = set()  # results that are single numbers, made of numbers in the code alone
        self._read: list[tuple[Tensor, Tensor, str]] = []  # constants whose values Python has: with these, and where

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch's compiler is loaded to be told so

    def ref(self, value: Any) -> Any:
        """`value` with a `Ref` in the place of each tensor of the run."""
        if isinstance(value, Tensor):
            return self._refs.get(value, value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(self.ref, value))
        return value

    def run(self, function: Callable[[], Any]) -> Any:
        """What `function` gives, its operations noted."""
        switches = _Switches()
        try:
            with enable_python_dispatcher(), switches, self:
                return function()
        finally:  # not at once: what has been switched on is then switched off again
            if switches.refused:
                raise NotAProgram(switches.refused)

    def refuse_reads(self, kept: Container[int]) -> None:
        """Raises NotAProgram where a value went into Python that the run has changed since, or that the model no longer
        keeps, though it did; `kept`: ids of the tensors that it keeps before and after the run."""
        for value, then, why in self._read:
            if (id(value) in self._before and id(value) not in kept) or not _equal(value, then):
                raise NotAProgram(why)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in flat((*args, *kwargs.values())) if isinstance(value, Tensor)]
        if any(type(value) not in (Tensor, nn.Parameter, nn.Buffer) for value in tensors):
            return NotImplemented
        if func.overloadpacket.__name__ in _COMPOSED and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        made = [ref for ref in map(self.ref, tensors) if isinstance(ref, Ref)]
        fixed = self._numbers.issuperset(made)
        with torch._C._DisablePythonDispatcher():
            if _READ in func.tags or func is torch.ops.aten.is_nonzero.default:
                if not fixed:
                    raise NotAProgram(_reads(sys._getframe(1)))
                self._read += [(value, value.clone(), _reads(sys._getframe(1))) for value in tensors]
                return func(*args, **kwargs)
            if func is torch.ops.aten.lift_fresh.default:  # of a tensor made of numbers in the code
                func = torch.ops.aten.lift_fresh_copy.default
                fixed, made = True, [Ref(-1)]
            noted = by_name(func, self.ref(args), {name: self.ref(value) for name, value in kwargs.items()})
            result = func(*args, **kwargs)
            if _shows_all(func, noted) and isinstance(whole := self.ref(args[0]), Ref):
                self._refs[result] = whole
                return result
            if func.namespace == "aten" and "empty" in func.overloadpacket.__name__:  # the same in each run
                result.zero_()
            if func._schema.is_mutable and not fixed:
                self._numbers.clear()  # whatever may show the memory that was written to
            self.calls.append(Call(func, noted, _snapshot(result), line_among(walk_stack(sys._getframe(1)))))
        several = isinstance(result, (list, tuple))
        for part, value in enumerate(result if several else (result,)):
            if isinstance(value, Tensor):
                ref = self._refs[value] = Ref(len(self.calls) - 1, part if several else None)
                if made and fixed and value.numel() <= 1 and _RANDOM not in func.tags:
                    self._numbers.add(ref)
        return result


class _Switches(PreDispatchTorchFunctionMode):
    """Notes what is no operation and changes those that come after it, in `refused`; gradients may be switched."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.refused = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, autocast = getattr(func, "__name__", ""), func in _AUTOCAST
        foreign = isinstance(func, HigherOrderOperator) or getattr(func, "__module__", "") == _FUNCTORCH
        if not self.refused and (autocast or foreign):
            where = f" ({line})" if (line := line_among(walk_stack(sys._getframe(1)))) else ""
            self.refused = (
                f"{name}{where} is not among the operations that a step program has: write it with others, or stream "
                "the parts."
            )
            if autocast:
                self.refused = f"forward switches autocast on{where}: a step computes in float32, without it."
        return None if autocast else func(*args, **(kwargs or {}))  # torch has switched it already


def _shows_all(func: Any, noted: dict[str, Any]) -> bool:
    """Whether it is `x[:]`, of which earlier releases of torch make one for each ":" of `x[:, t]`."""
    if func is torch.ops.aten.alias.default:
        return True
    every = func is torch.ops.aten.slice.Tensor and not noted["start"] and noted["step"] == 1
    return every and (noted["end"] is None or noted["end"] == sys.maxsize)


def _equal(value: Tensor, then: Tensor) -> bool:
    """Also where both are NaN."""
    return value.shape == then.shape and bool(((value == then) | (value.isnan() & then.isnan())).all())


def _snapshot(result: Any) -> Any:
    """The result's values at this moment: later operations may change them in place."""
    if isinstance(result, (list, tuple)):
        return type(result)(map(_snapshot, result))
    return result.clone() if isinstance(result, Tensor) else result


def _reads(frame: FrameType) -> str:
    where = f" ({line})" if (line := line_among(walk_stack(frame))) else ""
    if _packs(frame):
        return (
            f"it packs its sequences{where}, whose rows end at different steps: a stream has one step of each row, so "
            "give it a forward without packing."
        )
    return (
        f"forward reads a tensor's value into Python{where}, as one that branches on a tensor's value does: use "
        "torch.where, or stream the parts."
    )


def _packs(frame: FrameType | None) -> bool:
    """Whether it is torch's recurrent layers or their packing that read: a user's file may have the same name."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_TORCH) and frame.f_code.co_filename.endswith("rnn.py"):
            return True
        frame = frame.f_back
    return False


def line_among(frames: Iterable[tuple[FrameType, int]]) -> str:
    """The first line that is neither torch's nor of this folder, "net.py:14"; of a package that the model uses, the
    model's. frames: each with the line that it is at, from within, as `traceback.walk_stack` gives them."""
    found = ""
    for frame, number in frames:
        path = frame.f_code.co_filename
        if frame.f_code is Recorder.run.__code__:
            break
        if not path.startswith((_TORCH, _HERE, "<eval_with_key>")):  # the last is code that torch has made
            found = found or f"{os.path.basename(path)}:{number}"
            if not path.startswith(_PACKAGES):
                return f"{os.path.basename(path)}:{number}"
    return found
