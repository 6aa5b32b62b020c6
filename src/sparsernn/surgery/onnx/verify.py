"""The check of an exported file: onnxruntime and torch, at the example's sizes and far from them, from fresh states."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ...extras import require
from .call import Flat
from .reads import Place, Reads, only_checks, spelled
from .sizes import Together, resized
from .translate import Warned, first_line, reasons
from .variants import Variants

TOLERANCE = 1e-4  # float32, of the output's largest value
ROUNDING = 16  # times the difference between torch's own float32 and float64
SECONDS = 30.0  # of torch; batches and lengths that would take longer together are not checked
CURE = (
    "Python loops over time or batch, len(x) and pooling over a whole length come out with the example's sizes.\n"
    "Put nn.LSTM, nn.GRU or nn.RNN in the place of a loop of cells, x.shape[0] in that of len(x), y.amax(-1) in that "
    "of max_pool1d; or fix the sizes: export_onnx(..., dynamic=False)."
)
Sizes = list[tuple[Together, int]]


class Check:
    """Runs `content` beside the model. `verify` raises ValueError where they differ."""

    def __init__(self, content: bytes, flat: Flat, sets: Mapping[str, Together], warned: Warned, dynamic: bool) -> None:
        ort = require("onnxruntime", "ONNX export")
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised below
        try:
            self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"export_onnx: onnxruntime refuses the exported model: {first_line(error)}") from error
        self.known = {given.name for given in self.session.get_inputs()}
        self.flat, self.sets, self.warned, self.dynamic = flat, sets, warned, dynamic
        self.read: dict[Place, set[str]] = {}
        self.reading, self.drawn = True, ""

    def verify(self, variants: Variants) -> None:
        start = time.perf_counter()
        self.flat.run(self.flat.examples)
        seconds = time.perf_counter() - start
        self._compare("the example", self.flat.examples)
        lost = [name for name, m in zip(self.flat.names, variants.matters) if m and name not in self.known]
        if lost:
            where = f" at {', '.join(map(spelled, [*self.read][:3]))}" if self.read else ""
            raise ValueError(
                f"export_onnx: the outputs depend on {', '.join(lost)}, but the file would hold the example's values.\n"
                f"The model takes Python numbers out of it{where} (item, tolist, numpy): compute with tensors."
            )
        self._compare("the example with other numbers", variants.of(self.flat.examples, 1))
        left = SECONDS
        cases = [(seconds * max(new / one.size for one, new in sizes), what, sizes) for what, sizes in self._cases()]
        for seed, (cost, what, sizes) in enumerate(sorted(cases, key=lambda case: case[0]), start=2):
            if cost > left:
                break
            left -= cost
            values = resized(self.flat.examples, [(one.axes, new) for one, new in sizes])
            if not self._compare(what, variants.of(values, seed)):
                self._compare(what, values)
        self._refuse_untried()
        self._warn_of_branches()

    def _cases(self) -> Iterator[tuple[str, Sizes]]:
        """Every axis alone, and all together."""
        for label, one in self.sets.items():
            for size in one.far():
                yield f"a {label} of {size} (the example's is {one.size})", [(one, size)]
        if len(self.sets) > 1:
            for pick in (0, 1, -2):
                sizes = [(one, one.far()[pick]) for one in self.sets.values()]
                yield " and ".join(f"a {label} of {new}" for label, (_, new) in zip(self.sets, sizes)), sizes

    def _compare(self, what: str, values: Sequence[Tensor]) -> bool:
        """Whether torch can run on `values`, and then gives numbers. Raises ValueError if the file gives others."""
        # Following every operator is slow, and most models read nothing.
        with Reads(values) if self.reading else nullcontext() as reads:
            want = self.flat.attempt(values)
        if reads and reads.random:
            self.drawn = f"{reads.random[0]}, which draws at random"
        if isinstance(want, Exception) or any(bool(torch.isnan(one).any()) for one in want if one.is_floating_point()):
            return False
        given = {name: value.numpy() for name, value in zip(self.flat.names, values) if name in self.known}
        try:
            found = self.session.run(None, given)
        except Exception as error:
            raise self._wrong(f"onnxruntime fails on {what}: {first_line(error)}") from error
        for n, (a, b) in enumerate(zip(map(torch.from_numpy, found), want, strict=True)):
            if a.shape != b.shape:
                raise self._wrong(
                    f"on {what} onnxruntime gives output {n} the shape {list(a.shape)}, torch {list(b.shape)}"
                )
            if not self._agree(a, b, n, values):
                raise self._wrong(
                    f"on {what} output {n} of onnxruntime differs from torch's by {_difference(a, b):.2g}"
                )
        read = reads.values if reads else {}
        for place, seen in read.items():
            self.read.setdefault(place, set()).add(",".join(seen))
        self.reading = bool(self.read)
        return True

    def _agree(self, a: Tensor, b: Tensor, n: int, values: Sequence[Tensor]) -> bool:
        if not b.is_floating_point():
            return int((a != b).sum()) <= b.numel() // 1000  # of many, a few stand at the border of two numbers
        infinite = ~torch.isfinite(b)
        if not torch.equal(~torch.isfinite(a), infinite) or not torch.equal(a[infinite], b[infinite]):
            return False
        finite = b[~infinite].double().abs()
        difference = _difference(a, b)
        if difference <= TOLERANCE * (finite.max().item() if finite.numel() else 0.0):
            return True
        # What is left of large numbers that cancel is rounding, in torch as well.
        twin = self.flat.fresh().double()
        twin.examples = []
        try:
            exact = twin(*(value.double() if value.is_floating_point() else value.clone() for value in values))[n]
        except Exception:
            return difference <= 1e-6
        return exact.shape == b.shape and difference <= ROUNDING * _difference(exact, b)

    def _refuse_untried(self) -> None:
        """What Python reads out of the inputs is right in the file if it was tried with other values."""
        places = [place for place, seen in self.read.items() if len(seen) < 2 and not only_checks(place)]
        if places:
            raise ValueError(
                f"export_onnx: at {', '.join(map(spelled, places[:3]))} Python reads a number out of an input (if, "
                "item, int, tolist, numpy); the file would keep the example's.\n"
                "Compute with tensors: torch.where in the place of a branch, a mask in that of a number."
            )

    def _warn_of_branches(self) -> None:
        """Branches on sizes are in the file as the example took them: right at the sizes that were checked."""
        branches = [
            spelled(place)
            for place, what in self.warned.items()
            if what.endswith("boolean")
            and not what.startswith("inside")
            and place not in self.read
            and not only_checks(place)
        ]
        if branches and self.sets:
            sizes = ", ".join(f"{label} {sorted({one.size, *one.far()})}" for label, one in self.sets.items())
            warnings.warn(
                f"export_onnx: at {', '.join(branches[:3])} a branch depends on a size; the file has the one that the "
                f"example took, right for {sizes}.\nFix the sizes (dynamic=False) if others may come.",
                stacklevel=4,
            )

    def _wrong(self, what: str) -> ValueError:
        untried = [place for place in self.read if not only_checks(place)]
        why = self.drawn or reasons(self.warned) or ", ".join(map(spelled, untried[:3]))
        cause = f" Numbers are fixed at {why}." if why else ""
        cure = CURE if self.dynamic and self.sets else "Write the step that differs with other operations."
        return ValueError(f"export_onnx: {what}; nothing was written.{cause}\n{cure}")


def _difference(a: Tensor, b: Tensor) -> float:
    both = torch.isfinite(a) & torch.isfinite(b)
    return (a.double() - b.double())[both].abs().max().item() if bool(both.any()) else 0.0
