"""Which class a module of a copied model gets, so that it runs on kernels, and whether it may have it."""

from __future__ import annotations

import copy
import copyreg
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from .._modules import copied, set_seed
from .._twins import near
from ..nn.layers import LayeredRecurrent
from ..nn.protocol import LAYERS, Layer
from ..structure.examples import leaves_in
from .baking import bake, is_computed
from .engine import Engine
from .held import thaw
from .layered import LayerByLayer, WholeLayer
from .linear import AcceleratedLinear, LinearEngine, LinearLayer
from .modules import CELLS, STACKS, Accelerated
from .weights import linear_names

TORCH: dict[type[nn.Module], type[nn.Module]] = {**STACKS, **CELLS, nn.Linear: AcceleratedLinear}
FORMS = (WholeLayer, LayerByLayer, LinearLayer)  # of the layers of this package
NEAR = 1e-4  # of the largest output: what a layer that computes in another order may differ by


def runs_on_kernels(module: nn.Module) -> bool:
    """Whether `module` is a recurrent layer or a cell, or derived from one, that kernels can run."""
    if isinstance(module, (nn.Linear, Accelerated)):
        return False
    return isinstance(module, tuple(TORCH)) or (isinstance(module, Layer) and (_packs(module) or _is_gated(module)))


def _packs(layer: Layer) -> bool:
    return layer.packing() is not None


def _is_gated(module: nn.Module) -> bool:
    """A registered layer, no class derived from it, that kernels run in its dense form."""
    stack = isinstance(module, LayeredRecurrent) and module.like_torch and not _packs(module)
    return stack and type_before_parametrizations(module) in LAYERS.values()


def is_split(module: nn.Module) -> bool:
    """A registered layer, no class derived from it, that is made of recurrent modules."""
    inner = [part for part in module.modules() if part is not module]
    made_of = isinstance(module, LayeredRecurrent) and any(isinstance(part, Accelerated) for part in inner)
    return made_of and type(module) in LAYERS.values()


def is_linear(module: nn.Module) -> bool:
    """A linear layer, no class derived from it: those are mostly read by other modules, and not called."""
    kind = type_before_parametrizations(module)
    return kind is nn.Linear or (kind in LAYERS.values() and bool(linear_names(module)))


def has_own_forward(module: nn.Module) -> bool:
    """Whether an accelerated module does more than its kernels: its class is derived from torch's."""
    first = next(base for base in type(module).__mro__ if "forward" in vars(base))
    return not issubclass(first, Accelerated)


def into_one(module: Any) -> None:
    """A gated or split layer becomes the dense one of the same function in its place, under all its names.

    Constant gates become zero rows again, and what a split layer lacks zero blocks: the packing leaves both out by
    itself, and one call runs the layer.
    """
    dense = module.to_dense().requires_grad_(False)
    # What was hung on it stays: the hooks of its forward, and what surgery attached.
    kept = {n: v for n, v in vars(module).items() if n.startswith(("_forward_", "_sparsernn"))}
    module.__class__ = type(dense)
    module.__dict__.clear()
    module.__dict__.update(dense.__dict__ | kept)


def put_on_kernels(module: Any, wrappers: Iterable[nn.Module] = ()) -> str:
    """Give `module` its accelerated class, plain weights and an engine; "" or, with nothing changed, why it can't have
    them.

    Where its weights were computed at each call, or its class is derived from torch's, it has to give the numbers that
    it gave before. wrappers: modules round it.
    """
    if "forward" in module.__dict__:
        return "its forward was replaced by another function"
    new: Any = _another(module)
    wrong = bake(new, wrappers)
    if wrong:
        return wrong
    if _is_gated(new):
        into_one(new)
    base = next(base for base in type(new).__mro__ if base in TORCH or base in LAYERS.values())
    engine = LinearEngine if linear_names(new) else Engine
    own = type(new) is not base
    if base in LAYERS.values():
        new.check_tensors()  # the kernels take the weights as they stand
    fast: Any = TORCH.get(base) or _class_for(base, _form_of(new))
    new.__class__ = made(type(new), fast) if own else fast
    new.__dict__["_engine"] = engine("float32")
    if own or is_computed(module):
        wrong = _differs(module, new, base.__name__ if own else "")
    if not wrong:
        new.__dict__["_engine"] = engine("float32")  # another than the one that was tried
        module.__class__ = new.__class__
        module.__dict__.clear()
        module.__dict__.update(new.__dict__)
    return wrong


def _form_of(layer: Any) -> type[Accelerated]:
    return LinearLayer if linear_names(layer) else WholeLayer if layer.packing().whole else LayerByLayer


@cache
def _class_for(base: type[nn.Module], form: type) -> Any:
    return made(form, base)


def on_torch(model: nn.Module) -> nn.Module:
    """`model`, a copy of an accelerated one, back on the classes that it had: all operations are torch's again."""
    for module in model.modules():
        thaw(module)
        module.__class__ = _before(type(module))
        module.__dict__.pop("_engine", None)
    return model


def _before(kind: type) -> Any:
    """The class that a module had before it was accelerated."""
    first, *others = vars(kind).get("_made_of", (kind,))
    if first in FORMS:
        return others[0]
    if first is not kind:
        return _before(first)
    return next(base for base in kind.__mro__ if base in TORCH) if issubclass(kind, Accelerated) else kind


def _another(module: nn.Module) -> Any:
    """The same weights and parts in another module, whose tables can be changed."""
    new = type(module).__new__(type(module))
    new.__dict__.update({n: copy.copy(v) if isinstance(v, (dict, list)) else v for n, v in vars(module).items()})
    return new


def _differs(before: nn.Module, after: nn.Module, base: str) -> str:
    """What `after` does otherwise than `before`, both run on one input; "" for nothing.

    base: torch's class that theirs is derived from, "" if it is that class.
    """
    linear = bool(linear_names(before))
    size = before.in_features if linear else before.input_size
    rows = (2,) if linear or isinstance(before, tuple(CELLS)) else (3, 2)
    before, after = copied(before), copied(after)  # a forward may keep what it likes
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        set_seed(0)
        x = torch.randn(*rows, cast(int, size), dtype=torch.float32, device="cpu")
        try:
            want = _tensors(before(x))
        except Exception as error:
            # The weights of a layer of torch's own may be set by what is round it, before each call.
            return f"its forward takes other inputs than {base}'s ({type(error).__name__})" if base else ""
        try:
            got = _tensors(after(x))
        except Exception as error:
            return f"on kernels it raises {type(error).__name__}"
    if base and not cast(Any, after)._engine._matrices:
        return f"its forward does not call {base}'s"
    return "" if near(got, want, NEAR) else "on kernels it gives other numbers"


def _tensors(outputs: Any) -> list[Tensor]:
    found = [[leaf] if isinstance(leaf, Tensor) else list(leaf) for leaf in leaves_in(outputs)]
    return [tensor for tensors in found for tensor in tensors]


def made(*bases: type) -> Any:
    """A class of these bases under the first one's name; copies and pickles of its objects name the bases."""

    def reduce_ex(self: Any, protocol: Any) -> Any:
        build, arguments, *rest = super(new, self).__reduce_ex__(protocol)
        if build in (copyreg.__newobj__, _rebuild):  # type: ignore[attr-defined]
            build, arguments = _rebuild, (_recipe(new),)
        return build, arguments, *rest

    first = bases[0]
    name = f"Accelerated{bases[1].__name__}" if first in FORMS else first.__name__
    names = {"__module__": first.__module__, "__doc__": first.__doc__, "__reduce_ex__": reduce_ex, "_made_of": bases}
    new: Any = type(name, bases, names)
    return new


def _recipe(made_class: type) -> Any:
    bases = vars(made_class).get("_made_of")
    return made_class if bases is None else tuple(map(_recipe, bases))


def _class_of(recipe: Any) -> Any:
    return made(*map(_class_of, recipe)) if isinstance(recipe, tuple) else recipe


def _rebuild(recipe: Any) -> nn.Module:
    new = _class_of(recipe)
    return new.__new__(new)
