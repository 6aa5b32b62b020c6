"""Export to ONNX with one node for each recurrent layer, batch and time dynamic, checked before it returns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..._modules import copied, in_eval, unwrap
from ...extras import require
from ...files import write_atomically
from ...structure.examples import calls, fresh, run
from .call import Flat
from .function import refuse_state_and_noise
from .kinds import refuse_other_kinds
from .labels import labelled
from .sizes import Together, free_axes, resized
from .translate import translate
from .variants import Variants
from .verify import Check
from .widths import with_own_widths

OPSETS = range(13, 21)


def export_onnx(
    model: nn.Module, path: str | Path, example_inputs: Any, *, dynamic: bool = True, opset: int = 17
) -> None:
    """Write `model` to `path` as ONNX, in eval mode, with every axis that may change (batch, time) dynamic.

    LSTM, GRU and RNN layers, ragged and gated ones too, become single nodes; a layer whose directions differ in width
    becomes a forward and a reverse node. Each tensor of the call is an input of the file, whatever container holds it,
    named after the argument of `forward` and its place there (`x`, `states_0`, `batch_mask`; a state of unequal widths
    is one input a row: `h_0`, `h_1`, ...). Other values of the call are constants. Outputs are `output`, `output_1`,
    ..., in the order of the result. States that go in have the widths of those that come out, so that the file can be
    called step by step, also after `compact`. Of several examples the first is exported.

    `dynamic=False` writes the file at the sizes of the example, for models that compute with numbers made of sizes;
    `opset` (13 to 20) is the version of ONNX's operators. A batch or time that even torch can't change is fixed with a
    warning.

    Before the file is written onnxruntime runs it beside torch with other numbers, other batch sizes (1, 3) and lengths
    far from the example's (half, twice, eight times), each time from a fresh state: outputs within 1e-4 of torch's,
    relative to the largest.

    Raises ValueError where the model can't be exported, where onnxruntime gives something else, and, by name, for what
    a file would freeze: state that a model keeps from call to call, random numbers, branches on the numbers of an
    input. ImportError without the extra `onnx`.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name, "ONNX export")
    model = unwrap(model)
    if opset not in OPSETS:
        raise ValueError(f"export_onnx: opset is {opset!r}; expected {OPSETS[0]} to {OPSETS[-1]}.")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first.")
    refuse_other_kinds(model)
    call = calls(example_inputs)[0]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        plain = in_eval(model).cpu()
        flat = Flat(plain, call)
        run(copied(plain), fresh(flat.call.filled(iter(flat.examples))))
        flat = with_own_widths(flat)
        _look_at_arguments(flat)
        variants = Variants(flat)
        refuse_state_and_noise(flat, [variants.of(flat.examples, seed) for seed in (1, 2)])
        sets = labelled(flat, free_axes(flat.examples, flat.attempt)) if dynamic else {}
        inputs = _inputs_to_trace(flat, sets)
        outputs = _output_names(flat)
        content, warned = translate(flat, inputs, _dynamic_axes(flat, sets, outputs), outputs, opset)
        Check(content, flat, sets, warned, dynamic).verify(variants)
    write_atomically(path, content)


def _look_at_arguments(flat: Flat) -> None:
    changed, filled = flat.changed()
    if filled:
        raise ValueError(
            f"export_onnx: forward puts tensors into its argument {', '.join(filled)}; a file can't hand them out "
            "there.\nReturn them."
        )
    if changed:
        flat.own = True
        warnings.warn(
            f"export_onnx: forward changes {', '.join(changed)} in place; a file leaves its inputs as they are.\n"
            "Return what the caller needs of it.",
            stacklevel=3,
        )


def _inputs_to_trace(flat: Flat, sets: Mapping[str, Together]) -> list[Tensor]:
    """The example with no dynamic axis of size 1, which would pass for one that broadcasts."""
    sizes = [(one.axes, one.size + one.step * more) for more, one in enumerate(sets.values(), start=1)]
    grown = resized(flat.examples, sizes)
    return grown if isinstance(flat.attempt(grown), tuple) else list(flat.examples)


def _output_names(flat: Flat) -> list[str]:
    count = len(flat.run(flat.examples))
    word = "output"
    while any(name.startswith(word) for name in flat.names):
        word += "_"
    return [word if n == 0 else f"{word}_{n}" for n in range(count)]


def _dynamic_axes(flat: Flat, sets: Mapping[str, Together], outputs: Sequence[str]) -> dict[str, dict[int, str]]:
    """Name of an input or output -> its axes that change, by number."""
    axes: dict[str, dict[int, str]] = {}
    before = flat.run(flat.examples)
    for label, one in sets.items():
        for n, axis in one.axes:
            axes.setdefault(flat.names[n], {})[axis] = label
        for size in (one.size + one.step, *one.far()[:-1]):  # the last, eight times as long, costs most
            after = flat.attempt(resized(flat.examples, [(one.axes, size)]))
            for name, a, b in zip(outputs, before, after if isinstance(after, tuple) else ()):
                for axis in range(a.dim() if a.dim() == b.dim() else 0):
                    if a.shape[axis] != b.shape[axis]:
                        axes.setdefault(name, {})[axis] = label
    return axes
