"""The model behind its wrappers, and copies of it: one rule for every function that takes a model."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ._rebinding import cells, functions, rebind, refuse_proxies

_SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel and `torch.compile`, in any order of nesting.

    So that parameter names are the model's own. Raises TypeError for what is no module and ValueError for a model that
    FSDP has sharded.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"Got {type(model).__name__} as the model, expected a torch.nn.Module.")
    for module in model.modules():
        # By name: importing torch's FSDP costs a second and fails on builds without distributed.
        if any(base.__name__ in _SHARDED for base in type(module).__mro__):
            raise ValueError(
                "The model is sharded by FSDP, whose ranks hold only parts of each weight matrix.\n"
                "Use DistributedDataParallel with sparsernn, or call sparsernn before sharding."
            )
    return unwrapped(model)


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return model.module
    inner = getattr(model, "_orig_mod", None)  # torch.compile
    return inner if isinstance(inner, nn.Module) else None


def places(model: nn.Module, *, twice: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """Every module with its path, as `named_modules` gives them, but wrappers within the model (`self.encoder =
    torch.compile(...)`, `nn.DataParallel(...)`) stand for what is inside. `twice`: under all its names."""
    seen: set[nn.Module] = set()

    def walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        module = unwrapped(module)
        if module in seen and not twice:
            return
        seen.add(module)
        yield path, module
        for name, child in module._modules.items():
            if child is not None:
                yield from walk(child, f"{path}.{name}" if path else name)

    yield from walk(model, "")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside its wrappers, itself if it has none."""
    while (inner := _inside(module)) is not None:
        module = inner
    return module


def is_accelerated(module: nn.Module) -> bool:
    """Whether `accelerate` made it: by the name of its class, for rooms that the runtime is built on."""
    start = __name__.split(".")[0] + ".runtime."
    return any(base.__module__.startswith(start) for base in type(module).__mro__)


def is_stored(module: nn.Module) -> bool:
    """Whether matrices of `module` are kept as their values alone (`Rewire(storage="sparse")`); copies are plain."""
    return any(getattr(hook, "stores", False) for hook in module._forward_pre_hooks.values())


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy. Tensors with a history (an activation that the model keeps on `self`) are copied without it; what
    torch compiled in place of a call or a forward is left out, since it would run the original. Functions that hold
    the model (hooks that close over `self`, lambdas kept on it) hold the copy instead.

    `memo`: id of an object -> what stands for it in the copy. TypeError with a sentence where the model holds
    something that can't be copied.
    """
    refuse_proxies(model)
    memo = {} if memo is None else memo
    try:
        other = _deep_copy(model, memo)
    except Exception as error:
        raise TypeError(
            f"{type(model).__name__} can't be copied ({type(error).__name__}: {error}); sparsernn works on a copy.\n"
            f"Take what can't be copied (locks, open files, generators) out of the model's attributes: "
            f"{_not_copied(model)}."
        ) from error
    for module in other.modules():
        module.__dict__.pop("_compiled_call_impl", None)
        behind = getattr(vars(module).get("forward"), "_torchdynamo_orig_callable", None)
        if behind is not None and getattr(behind, "__qualname__", None) == type(module).forward.__qualname__:
            del module.__dict__["forward"]
    with torch.inference_mode(False), _WithoutHistory():
        rebind(other, memo)
    return other


def kept_by_functions(model: nn.Module) -> list[Any]:
    """What functions on the modules keep beside them: variables of the functions that made them, and defaults."""
    every = list(functions(model))
    found = [cell.cell_contents for cell in cells(every).values()]
    for one in every:
        found += [*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
    return found


def _deep_copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    # Most of what modules hold are empty tables of hooks, which deepcopy is slow with.
    memo |= {
        id(v): type(v)() for m in model.modules() for v in vars(m).values() if type(v) in (dict, OrderedDict) and not v
    }
    before = dict(memo)
    with torch.inference_mode(False):
        try:
            return copy.deepcopy(model, memo)
        except RuntimeError:  # as of a tensor with a history; the mode takes time at every tensor
            memo.clear()
            memo.update(before)
            with _WithoutHistory():
                return copy.deepcopy(model, memo)


class _WithoutHistory(TorchFunctionMode):
    """torch copies no tensor that has a history: here its values are copied alone, wherever it is kept."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = copy.deepcopy(tensor.detach(), memo)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _not_copied(model: nn.Module) -> str:
    """The first attribute that can't be copied, by its path."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            try:
                with _WithoutHistory():
                    copy.deepcopy(value) if name != "_modules" else None
            except Exception:
                return f"{path}.{name}" if path else name
    return "?"


def set_seed(number: int) -> None:
    """As `torch.manual_seed`, which writes down a stack for each kind of device that nothing has used yet."""
    (torch if torch.accelerator.is_available() else torch.default_generator).manual_seed(number)


def set_eval(model: nn.Module) -> None:
    """Eval mode for every module, whatever the model's own `train` and `eval` do and return."""
    with suppress(Exception):  # a method of that name may be something else (a training loop)
        model.eval()
    for module in model.modules():
        module.training = False


def in_eval(model: nn.Module) -> Any:
    """A copy in eval mode."""
    twin = copied(model)
    set_eval(twin)
    return twin


def set_precision(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters, buffers and tensors that modules keep in `dtype`, as attributes or in functions; complex ones as
    complex numbers."""
    seen: dict[int, tuple[Any, Any]] = {}

    def cast(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
            return value  # parameters are changed in place, wherever they are kept
        if id(value) not in seen:
            seen[id(value)] = (value, in_precision(value, dtype))
        return seen[id(value)][1]

    for module in model.modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules") and _is_nest(value):
                module.__dict__[name] = tree_map(cast, value)
    for cell in cells(functions(model)).values():
        if _is_nest(cell.cell_contents):
            cell.cell_contents = tree_map(cast, cell.cell_contents)
    model._apply(lambda tensor: in_precision(tensor, dtype) if isinstance(tensor, nn.Parameter) else cast(tensor))


def _is_nest(value: Any) -> bool:
    """A tensor, or lists, tuples and dicts of tensors: never a user's own object, nor a table of hooks."""
    if type(value) in (list, tuple):
        return any(map(_is_nest, value))
    if type(value) is dict:
        return any(map(_is_nest, value.values()))
    return isinstance(value, Tensor)


def in_precision(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` in `dtype` if it holds floating-point numbers, in the complex type of that size if complex ones."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def unparametrize(module: nn.Module) -> str:
    """Make the weights that parametrizations of a copied module compute plain parameters; "" or why that can't be."""
    values = {}
    for name in cast(nn.ModuleDict, module.parametrizations):
        first, second = (getattr(module, name).detach().clone() for _ in range(2))
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            return f"the parametrization of {name} gives other numbers at each call"
        values[name] = first
    # The class made by torch has the weights as properties and is shared with the original: only this module leaves it.
    cast(Any, module).__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        own(module, name, value)
    return ""


def own(module: nn.Module, name: str, value: Tensor) -> None:
    """Give `module` a plain parameter with these values, in the place of whatever has that name."""
    module.__dict__.pop(name, None)
    module._parameters.pop(name, None)
    setattr(module, name, nn.Parameter(value.detach().clone(), requires_grad=False))
