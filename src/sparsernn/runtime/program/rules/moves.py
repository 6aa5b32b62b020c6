"""Operations that move axes and elements and compute nothing: views on the step's tensors."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from torch import Tensor

from ..calls import Call
from ..constants import WRITE_NOTHING
from ..eliminate import Rule, Step, differing
from ..program import Clock
from ..values import CONST, HELD, NOW, Elements, Value
from ..windows import past


def same(step: Step) -> Value:
    """Copies, casts to the same numbers, dropout in eval mode: nothing happens."""
    return step[next(iter(step.args))]


def clone(step: Step) -> Value:
    """Memory of its own: what changes one of the two in place leaves the other."""
    x: Value = step["self"]
    return x.but(step.build.copied(step.tensor(x), clock_of(x)), data=None) if x.moves else x


def clock_of(value: Value) -> Clock:
    return value.clock if value.moves else Clock()


def reshape(step: Step) -> Value:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: the elements' order stays."""
    x: Value = step["self"]
    return reshaped(step, x)


def reshaped(step: Step, x: Value, part: int | None = None) -> Value:
    """`x` in the shape of the call's result."""
    shapes = step.shapes(part)
    axis = differing(*shapes, step.fail)
    tensor = step.tensor(x)
    if x.axis is None or axis is None:
        if x.axis is not None or axis is not None:
            step.fail("folds the steps of the sequence into features.")
        return x.but(step.build.reshape(tensor, shapes[0], clock_of(x)), data=None)
    factors = [Fraction(shape[axis], length) for shape, length in zip(shapes, x.lengths)]
    if factors[0] != factors[1]:
        step.fail("regroups the steps of the sequence in a way that depends on its length.")
    factor = factors[0]
    if factor.denominator > 1:
        if factor.numerator > 1 or tensor.shape[x.axis] != 1 or not x.moves:
            step.fail("regroups the steps of the sequence.")
        return _merged(step, x, factor.denominator, list(shapes[0]), axis)
    shape = list(shapes[0])
    shape[axis] = int(factor)
    if _numel(shape) != tensor.numel():
        step.fail("regroups the steps of the sequence.")
    return x.but(step.build.reshape(tensor, shape, clock_of(x)), axis=axis, data=None)


def _numel(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _merged(step: Step, x: Value, count: int, shape: list[int], axis: int) -> Value:
    """`count` steps become one."""
    assert x.axis is not None
    frames = past(step.build, x, count).movedim(0, x.axis)
    clock = Clock(x.clock.every * count, x.clock.first + (count - 1) * x.clock.every)
    shape[axis] = 1
    lengths = (x.lengths[0] // count, x.lengths[1] // count)
    return x.but(step.build.reshape(frames, shape, clock), axis=axis, clock=clock, lengths=lengths)


def permute(step: Step) -> Value:
    """transpose, permute, movedim and their kin: torch's own view of the step's tensor."""
    x: Value = step["self"]
    rest = {name: value for name, value in step.args.items() if name != "self"}
    return step.gives(step.call.target(step.tensor(x), **rest), x) if x.moves or x.axis is not None else x.but(
        step.call.target(step.tensor(x), **rest), data=None
    )  # fmt: skip


def expand(step: Step) -> Value:
    """A held value may be shown to every step; a sequence keeps its own."""
    x: Value = step["self"]
    tensor = step.tensor(x)
    shapes = step.shapes()
    axis = step.axis()
    shape = list(shapes[0])
    if axis is not None and x.axis is None:
        if x.kind not in (HELD, CONST):
            step.fail("gives a value of the whole sequence to each step.")
        shape[axis] = 1
        return x.but(tensor.expand(shape), axis=axis, lengths=(shapes[0][axis], shapes[1][axis]), data=None)
    if axis is not None and x.axis is not None:
        shape[axis] = tensor.shape[x.axis]
    return x.but(tensor.expand(shape), axis=axis, data=None)


def repeat(step: Step) -> Value:
    """The elements over and over: an expanded view, copied where torch copies."""
    x: Value = step["self"]
    tensor = step.tensor(x)
    repeats = list(step["repeats"])
    axis = step.axis()
    if axis is not None and x.axis is None and x.kind == NOW:
        step.fail("gives a value of the whole sequence to each step.")
    lead = len(repeats) - tensor.dim()
    if axis is not None:
        if x.axis is not None and repeats[axis] != 1:
            step.fail("repeats a sequence, which has no end in a stream.")
        if x.axis is None and lead <= axis and tensor.shape[axis - lead] != 1:
            step.fail("repeats a tensor once for each step.")
        repeats[axis] = 1
    tensor = tensor[(None,) * lead]
    shape = [size for n, r in zip(tensor.shape, repeats) for size in (r, n)]
    wide = tensor.unflatten(0, (1, -1)) if tensor.dim() else tensor
    for n in range(1, tensor.dim()):
        wide = wide.unflatten(2 * n, (1, -1))
    out = step.build.reshape(wide.expand(shape), [r * n for n, r in zip(tensor.shape, repeats)], clock_of(x))
    lengths = x.lengths if x.axis is not None else (0, 0)
    if axis is not None and x.axis is None:
        lengths = (step.shapes()[0][axis], step.shapes()[1][axis])
    return x.but(out, axis=axis, lengths=lengths, data=None)


def repeat_interleave(step: Step) -> Value:
    """Each element several times in a row."""
    x, dim, times = step["self"], step.get("dim"), step["repeats"]
    if not isinstance(times, int) or dim is None:
        step.fail("repeats each element another number of times.")
    return interleaved(step, x, dim, times)


def upsample(step: Step) -> Value:
    """To the nearest element: whole multiples."""
    x = step["input"] if "input" in step.args else step["self"]
    for axis in range(2, step.dim(x)):
        before = x.lengths if axis == x.axis else (step.tensor(x).shape[axis],) * 2
        times = {Fraction(shape[axis], n) for shape, n in zip(step.shapes(), before)}
        if len(times) > 1 or (ratio := times.pop()).denominator > 1:
            step.fail("gives a number of elements that is no multiple of what it is given.")
        x = interleaved(step, x, axis, int(ratio))
    return x


def interleaved(step: Step, x: Value, axis: int, times: int) -> Value:
    """Along time the value stays until the next one comes, where those come rarely enough."""
    tensor = step.tensor(x)
    axis %= tensor.dim()
    if times == 1:
        return x
    if axis == x.axis and x.moves:
        every, rest = divmod(x.clock.every, times)
        if rest or tensor.shape[axis] != 1:
            step.fail("gives several steps for one: give them as features of one.")
        lengths = (x.lengths[0] * times, x.lengths[1] * times)
        return x.but(tensor, clock=Clock(every, x.clock.first), lengths=lengths)
    shape = list(tensor.shape)
    wide = tensor.unsqueeze(axis + 1).expand(*shape[: axis + 1], times, *shape[axis + 1 :])
    shape[axis] *= times
    return x.but(step.build.reshape(wide, shape, clock_of(x)), data=None)


def broadcast_tensors(step: Step) -> list[Value]:
    """All in the shape that they have together."""
    found = []
    for n, x in enumerate(step["tensors"]):
        step.args["self"], whole = x, step.call.result[n]
        one = Call(step.call.target, step.call.args, whole, step.call.source)
        two = Call(step.other.target, step.other.args, step.other.result[n], step.other.source)
        found.append(expand(Step(step.build, one, two, step.args, step.steps)))
    return found


def parts(step: Step) -> Any:
    """split, chunk, unbind along features: views."""
    x: Value = step["self"]
    if x.moves and x.axis == step.get("dim", 0) % step.dim(x) and all(t.shape[x.axis] == 1 for t in step.call.result):
        return Elements(x, keep=True)
    step.kept_apart(x, [step.get("dim", 0)], "cuts up")
    name = next(iter(step.args))
    rest = {key: value for key, value in step.args.items() if key != name}
    found = step.call.target(step.tensor(x), **rest)
    return [step.gives(t, x, n) if x.axis is not None else x.but(t, data=None) for n, t in enumerate(found)]


def flip(step: Step) -> Value:
    """Along features alone."""
    x: Value = step["self"]
    step.kept_apart(x, step["dims"], "turns round")
    tensor = step.tensor(x)
    for dim in step["dims"]:
        tensor = picked(step, x, tensor, dim % tensor.dim(), list(reversed(range(tensor.shape[dim]))))
    return x.but(tensor, data=None)


def picked(step: Step, x: Value, tensor: Tensor, dim: int, index: list[int]) -> Tensor:
    """Rows of an axis by their numbers, in a new buffer."""
    moved = tensor.movedim(dim, 0)
    shape = (len(index), *moved.shape[1:])
    return step.build.made("pick", (moved,), shape, clock_of(x), tensor, index=tuple(index)).movedim(0, dim)


def index_select(step: Step) -> Value:
    """Rows of features by constant numbers."""
    x, dim, index = step["self"], step["dim"], step["index"]
    step.kept_apart(x, [dim], "picks from")
    if not isinstance(index, Value) or index.data is None:
        step.fail("picks elements by numbers that the model computes.")
    return x.but(picked(step, x, step.tensor(x), dim % step.dim(x), index.data.tolist()), data=None)


def index(step: Step) -> Value:
    """x[..., index] with one constant list of numbers."""
    x, indices = step["self"], step["indices"]
    given = [(n, i) for n, i in enumerate(indices) if i is not None]
    if len(given) != 1 or given[0][1].data is None or given[0][1].data.dim() != 1 or x.axis == given[0][0]:
        step.fail("picks elements of the sequence by numbers, or by several lists of numbers.")
    dim, numbers = given[0]
    data = numbers.data
    rows = (
        data.nonzero().flatten() if data.dtype.is_floating_point is False and str(data.dtype) == "torch.bool" else data
    )
    size = step.dim(x) and step.tensor(x).shape[dim]
    chosen = [int(n) % size for n in rows.tolist()]
    return x.but(picked(step, x, step.tensor(x), dim, chosen), data=None)


_SAME = ("contiguous", "detach", "alias", "lift_fresh", "lift_fresh_copy", "dropout", "feature_dropout",
         "alpha_dropout", "feature_alpha_dropout", "native_dropout", "resolve_neg", "resolve_conj", "requires_grad",
         "identity", *WRITE_NOTHING)  # fmt: skip
_RESHAPES = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "_reshape_alias",
             "view_as", "reshape_as", "ravel")  # fmt: skip
_PERMUTES = ("transpose", "permute", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "numpy_T", "mT", "adjoint")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(_RESHAPES, reshape),
    **dict.fromkeys(_PERMUTES, permute),
    "clone": clone, "repeat_interleave": repeat_interleave, "broadcast_tensors": broadcast_tensors,
    "upsample_nearest1d": upsample, "upsample_nearest2d": upsample,
    "expand": expand, "expand_as": expand, "broadcast_to": expand,
    "repeat": repeat, "tile": lambda step: repeat(_tiled(step)),
    "split": parts, "split_with_sizes": parts, "chunk": parts, "unsafe_chunk": parts, "unsafe_split": parts,
    "flip": flip, "index_select": index_select,
}  # fmt: skip


def _tiled(step: Step) -> Any:
    """tile(dims) is repeat with as many numbers as there are axes."""
    dims = list(step["dims"])
    step.args["repeats"] = [1] * (step.dim(step["self"]) - len(dims)) + dims
    return step
