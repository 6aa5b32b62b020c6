"""Which modules of a model draw their samples in a forward of their own, and which multipliers they may apply there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..._modules import in_eval
from ...structure import examples
from ...structure.compare import difference
from ...structure.structure import Structure
from ...structure.trace import quiet
from ..governed import Governed
from ..swapped import Forward, Swapped
from .layers import NoisyStack, noisy_embedding, noisy_linear, takes_multipliers
from .multipliers import Multipliers
from .noise import Draw
from .posterior import Posterior


def forwards(
    model: nn.Module, chosen: Governed, posterior: Posterior, alone: Callable[[str], bool]
) -> tuple[dict[nn.Module, Callable[[Draw], Forward]], set[str]]:
    """Modules of `model` that draw samples in a forward of their own, and the weights that they sample themselves.

    `alone`: whether the module of this path may apply multipliers in its forward.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    modules = dict(model.named_modules())
    owners: dict[int, int] = {}
    for module in modules.values():
        for parameter in module._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    made: dict[nn.Module, Callable[[Draw], Forward]] = {}
    own: set[str] = set()
    first = {m.batch_first for m in modules.values() if takes_multipliers(m)}
    batch_axis = (0 if first.pop() else 1) if len(first) == 1 else None
    layered = {layer.module for layer in chosen.layers}
    for path, module in modules.items():
        if takes_multipliers(module) and path in layered and alone(path):
            if any(kind in posterior.kinds for kind in ("input", "gate", "unit")):
                made[module] = NoisyStack(module, path, chosen.layers).drawing
        elif isinstance(module, (nn.Embedding, nn.Linear)):
            weight = module._parameters.get("weight")  # none where torch computes it (a norm of weights, say)
            if weight is None:
                continue
            name = names[id(weight)]
            plain = type(module).forward in (nn.Embedding.forward, nn.Linear.forward)
            if not plain or owners[id(weight)] > 1 or name not in posterior.sigmas:
                continue
            if isinstance(module, nn.Linear):
                made[module] = noisy_linear(module, name)
            elif module.max_norm is None and not module.scale_grad_by_freq and not module.sparse and alone(path):
                made[module] = noisy_embedding(module, name, path, batch_axis)
            else:
                continue
            own.add(name)
    return made, own


def alone_masks(kinds: Mapping[str, Multipliers], chosen: Governed, paths: set[str]) -> dict[str, Tensor]:
    """Kind -> bool (count,): multipliers all of whose places lie in modules of `paths`, which apply them."""
    path_of = {layer.name: layer.module for layer in chosen.layers}
    found = {}
    for kind, own in kinds.items():
        inside = torch.zeros(own.count + 1, dtype=torch.bool)
        outside = inside.clone()
        for place, numbers in own.units.items():
            name = place.rpartition(" ")[0] if kind == "gate" else place
            (inside if path_of.get(name, name) in paths else outside)[numbers] = True
        found[kind] = (inside & ~outside)[:-1]
    return found


@torch.no_grad()
def agreeing(
    model: nn.Module, chosen: Governed, kinds: Mapping[str, Multipliers], structure: Structure, example_inputs: Any
) -> set[str]:
    """Paths of modules whose forward may apply multipliers: there it is, by numbers, the same as scaling the slices.

    It is not where something curved lies between a unit and the weights that read it (another activation, a
    normalisation), or where a weight has further readers (a tied decoder).
    """
    layered = {layer.module for layer in chosen.layers}
    words = set(kinds["word"].units) if "word" in kinds else set()
    candidates = [p for p, m in model.named_modules() if (p in layered and takes_multipliers(m)) or p in words]
    found: set[str] = set()
    if _same(model, chosen, kinds, structure, example_inputs, set(candidates)):
        return set(candidates)
    for path in candidates:
        if _same(model, chosen, kinds, structure, example_inputs, {path}):
            found.add(path)
    return found


def _same(
    model: nn.Module,
    chosen: Governed,
    kinds: Mapping[str, Multipliers],
    structure: Structure,
    example_inputs: Any,
    paths: set[str],
) -> bool:
    source = torch.Generator().manual_seed(0)
    factors = {kind: 0.5 + torch.rand(own.count, generator=source).double() for kind, own in kinds.items()}
    alone = alone_masks(kinds, chosen, paths)
    outputs = []
    with quiet():
        for inside in (True, False):
            twin = in_eval(model).double().cpu()
            parameters: dict[str, Tensor] = dict(twin.named_parameters())
            own: dict[str, Multipliers] = {}
            for kind, each in kinds.items():
                factor = torch.where(alone[kind], factors[kind], 1.0)
                own[kind] = Multipliers(
                    kind, each.count, nn.Parameter(factor), nn.Parameter(factor), each.parts, each.units, alone[kind]
                )
                if not inside:
                    for part in each.parts:
                        part.multiply(parameters[part.parameter], part.spread(factor, 1.0))
            if inside:
                sigmas = {name: nn.Parameter(torch.zeros_like(parameters[name])) for name in chosen.weights}
                made, _ = forwards(twin, chosen, Posterior(sigmas, own), lambda path: path in paths)
                Swapped(twin, (), made, lambda: None, "Bayes").put(Draw({}, own, None))
            found = _outputs(twin, structure, example_inputs)
            if found is None:
                return False
            outputs.append(found)
    return len(outputs[0]) == len(outputs[1]) and all(difference(a, b, 1e-9) is None for a, b in zip(*outputs))


def _outputs(twin: nn.Module, structure: Structure, example_inputs: Any) -> list[Tensor] | None:
    found: list[Tensor] = []
    for number, call in enumerate(examples.calls(example_inputs), start=1):
        try:
            result = examples.run(twin, examples.fresh(call, torch.float64), number)
        except ValueError:  # a forward that insists on its own type of numbers: nothing can be shown
            return None
        for place, leaf in enumerate(examples.leaves_in(result)):
            if (number, place) not in structure.states:
                found += [t for t in examples.tensors_in(leaf) if t.is_floating_point()]
    return found
