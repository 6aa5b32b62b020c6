"""The text of a C file as it grows: tables, functions and statements; only what is used is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .kernels import KERNELS
from .terms import function_text, literals


class Source:
    """`$name` stands for `name` with the prefix of the model, until the file is written."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}  # name -> text, in an order in which they can call each other
        self.lines: list[str] = []  # of the step
        self._names: dict[str, str] = {}  # text -> name

    def kernel(self, name: str) -> str:
        """`name` of kernels.py, with all that it needs."""
        if name not in self.functions:
            needs, text = KERNELS[name]
            for need in needs:
                self.kernel(need)
            self.functions[name] = text
        return f"${name}"

    def formula(self, name: str) -> None:
        """A formula as a C function, with those that it calls."""
        if f"formula {name}" not in self.functions:
            called, text = function_text(name)
            for other in called:
                self.formula(other)
            self.functions[f"formula {name}"] = text

    def function(self, name: str, text: str) -> str:
        """A function whose name in `text` is `$@`: called `name`, with a number if that is taken by another text."""
        if text not in self._names:
            taken = set(self._names.values())
            own = name if name not in taken else next(
                f"{name}_{k}" for k in range(2, 10_000) if f"{name}_{k}" not in taken
            )  # fmt: skip
            self._names[text] = own
            self.functions[f"row {own}"] = text.replace("$@", f"${own}")
        return f"${self._names[text]}"

    def loop(self, sizes: Sequence[int], statements: Sequence[str]) -> None:
        """`statements` inside loops over i0, i1, ... of these sizes, as lines of the step."""
        self.lines += [f"    {line}" for line in loops(sizes, statements)]


def loops(sizes: Sequence[int], statements: Sequence[str], first: int = 0) -> list[str]:
    """`statements` inside loops of these sizes, whose counters begin with i{first}."""
    indent = "    "
    lines = [
        f"{indent * k}for (int i{first + k} = 0; i{first + k} < {n}; ++i{first + k}) {{" for k, n in enumerate(sizes)
    ]
    lines += [f"{indent * len(sizes)}{statement}" for statement in statements]
    return lines + [f"{indent * k}}}" for k in reversed(range(len(sizes)))]


def numbers(array: np.ndarray) -> list[str]:
    """The numbers of a table, in lines of at most 120 characters."""
    lines, line = [], "   "
    for value in literals(array):
        text = f" {value},"
        if len(line) + len(text) > 120:
            lines.append(line)
            line = "   "
        line += text
    return [*lines, line]


def named(text: str, name: str) -> str:
    """`text` with the model's name in place of `$`; `${NAME}` is in capitals."""
    text = text.replace("${H}", f"{name.upper()}_H")
    text = re.sub(r"\$\{(\w+)\}", lambda m: f"{name.upper()}_{m[1]}", text)
    for end in (".h", ".c", ".bin", ":"):
        text = text.replace(f"${end}", f"{name}{end}")
    return text.replace("$", f"{name}_")
