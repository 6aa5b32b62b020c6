"""Formulas written once: run on numpy arrays they are the oracle, run on terms they write themselves down as C.

A formula is a plain function of its operands that uses + - * /, comparisons, & and | of conditions, `pick`, `bits` and
`floats`, all of them exact or rounded once in IEEE float32: the same order of operations gives the same bits wherever
it runs. In C a formula stands twice, for vectors and for single numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

FLOATS, INTS, MASKS = "floats", "ints", "masks"
_FORMULAS: dict[str, tuple[Callable[..., Any], int]] = {}


class Trace:
    """The lines of C that a formula becomes. vector: for vectors of `$W` lanes, else for single numbers. letter: that
    the names of its values begin with."""

    def __init__(self, vector: bool, letter: str = "t") -> None:
        self.vector, self.letter = vector, letter
        self.lines: list[str] = []
        self.called: list[str] = []  # names of the formulas, in order of use
        self._known: dict[tuple[str, str], Term] = {}

    def type(self, kind: str) -> str:
        if self.vector:
            return "$V" if kind == FLOATS else "$I"
        return {FLOATS: "float", INTS: "int32_t", MASKS: "int"}[kind]

    def put(self, kind: str, text: str) -> Term:
        """A new name for `text`; the same text is worked out once."""
        if (kind, text) not in self._known:
            term = Term(self, f"{self.letter}{len(self.lines)}", kind)
            self.lines.append(f"const {self.type(kind)} {term.text} = {text};")
            self._known[kind, text] = term
        return self._known[kind, text]

    def spread(self, value: Any, kind: str) -> str:
        """The text of an operand that has to be a whole vector, even where it is a number."""
        if isinstance(value, Term):
            return value.text
        return f"$ALL({literal(value)})" if self.vector and kind == FLOATS else literal(value, kind)


class Term:
    """A value of a traced formula."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, trace: Trace, text: str, kind: str = FLOATS) -> None:
        self.trace, self.text, self.kind = trace, text, kind

    def _binary(self, sign: str, other: Any, swapped: bool = False, kind: str = "") -> Term:
        mine, theirs = self.text, other.text if isinstance(other, Term) else literal(other, self.kind)
        left, right = (theirs, mine) if swapped else (mine, theirs)
        return self.trace.put(kind or self.kind, f"{left} {sign} {right}")

    def __add__(self, other: Any) -> Term:
        return self._binary("+", other)

    def __radd__(self, other: Any) -> Term:
        return self._binary("+", other, True)

    def __sub__(self, other: Any) -> Term:
        return self._binary("-", other)

    def __rsub__(self, other: Any) -> Term:
        return self._binary("-", other, True)

    def __mul__(self, other: Any) -> Term:
        return self._binary("*", other)

    def __rmul__(self, other: Any) -> Term:
        return self._binary("*", other, True)

    def __truediv__(self, other: Any) -> Term:
        return self._binary("/", other)

    def __rtruediv__(self, other: Any) -> Term:
        return self._binary("/", other, True)

    def __neg__(self) -> Term:
        return self.trace.put(self.kind, f"-{self.text}")

    def __lt__(self, other: Any) -> Term:
        return self._binary("<", other, kind=MASKS)

    def __le__(self, other: Any) -> Term:
        return self._binary("<=", other, kind=MASKS)

    def __gt__(self, other: Any) -> Term:
        return self._binary(">", other, kind=MASKS)

    def __ge__(self, other: Any) -> Term:
        return self._binary(">=", other, kind=MASKS)

    def __eq__(self, other: Any) -> Term:  # type: ignore[override]
        return self._binary("==", other, kind=MASKS)

    def __ne__(self, other: Any) -> Term:  # type: ignore[override]
        return self._binary("!=", other, kind=MASKS)

    def __and__(self, other: Any) -> Term:
        return self._binary("&", other)

    def __or__(self, other: Any) -> Term:
        return self._binary("|", other)

    def __lshift__(self, other: Any) -> Term:
        if self.trace.vector:
            return self._binary("<<", other)
        return self.trace.put(self.kind, f"(int32_t)((uint32_t){self.text} << {literal(other, self.kind)})")

    def __rshift__(self, other: Any) -> Term:
        return self._binary(">>", other)


def literal(value: Any, kind: str = FLOATS) -> str:
    """A number as C writes it; a float32 reads back as itself."""
    if kind != FLOATS:
        return str(int(value))
    return _float(float(np.float32(value)))


def literals(array: np.ndarray) -> list[str]:
    """`literal` of each number of an array, without one of numpy's for each."""
    values = array.ravel().tolist()
    return [_float(value) for value in values] if array.dtype == np.float32 else [str(int(value)) for value in values]


_LIMITS = {"nan": "$NAN", "inf": "$INF", "-inf": "-$INF"}


def _float(value: float) -> str:
    text = f"{value:.9g}"
    return _LIMITS.get(text) or (f"{text}f" if "." in text or "e" in text else f"{text}.0f")


def _trace_of(*operands: Any) -> Trace | None:
    return next((o.trace for o in operands if isinstance(o, Term)), None)


def pick(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`; floats."""
    trace = _trace_of(condition)
    if trace is None:
        yes, no = (np.float32(v) if isinstance(v, (int, float)) else v for v in (yes, no))
        return np.where(condition, yes, no)
    yes, no = (trace.spread(v, FLOATS) for v in (yes, no))
    return trace.put(FLOATS, f"$PICK({condition.text}, {yes}, {no})" if trace.vector else _ternary(condition, yes, no))


def _ternary(condition: Term, yes: str, no: str) -> str:
    return f"{condition.text} ? {yes} : {no}"


def bits(x: Any) -> Any:
    """The 32 bits of a float as an integer."""
    if isinstance(x, Term):
        return x.trace.put(INTS, f"($I){x.text}" if x.trace.vector else f"$bits({x.text})")
    return np.asarray(x, np.float32).view(np.int32)


def floats(i: Any) -> Any:
    """The float of these 32 bits."""
    if isinstance(i, Term):
        return i.trace.put(FLOATS, f"($V){i.text}" if i.trace.vector else f"$float({i.text})")
    return np.asarray(i, np.int32).view(np.float32)


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """A formula that has a name of its own in C: other formulas call it."""
    name = function.__name__
    _FORMULAS[name] = function, function.__code__.co_argcount

    @wraps(function)
    def called(*operands: Any) -> Any:
        trace = _trace_of(*operands)
        if trace is None:
            return function(*operands)
        if name not in trace.called:
            trace.called.append(name)
        given = ", ".join(trace.spread(o, FLOATS) for o in operands)
        return trace.put(FLOATS, f"${name}_{'v' if trace.vector else '1'}({given})")

    return called


def function_text(name: str) -> tuple[list[str], str]:
    """The formulas that formula `name` calls, and its C text, for vectors and for single numbers."""
    function, count = _FORMULAS[name]
    called: list[str] = []
    texts = []
    for vector in (False, True):
        trace = Trace(vector)
        operands = "abcdefgh"[:count]
        result = function(*(Term(trace, o) for o in operands))
        called += trace.called
        kind = trace.type(FLOATS)
        head = (
            f"static inline {kind} ${name}_{'v' if vector else '1'}({', '.join(f'const {kind} {o}' for o in operands)})"
        )
        body = "\n".join(f"    {line}" for line in [*trace.lines, f"return {result.text};"])
        texts.append(f"{head}\n{{\n{body}\n}}\n")
    return list(dict.fromkeys(called)), f"{texts[0]}#if $W > 1\n{texts[1]}#endif\n"
