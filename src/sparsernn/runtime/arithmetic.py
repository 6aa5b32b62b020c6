"""The operators of numba's vector types: each as the instruction that LLVM has for it."""

from __future__ import annotations

import operator
from typing import Any, cast

from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin


def give_arithmetic(kind: Any, model: type) -> None:
    """+ - * / between two vectors of numba's type `kind`, of class `model`, lane by lane."""
    instructions = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
    for symbol, instruction_name in instructions.items():
        _give(symbol, instruction_name, kind, model)


def _give(symbol: Any, instruction_name: str, kind: Any, model: type) -> None:
    @cast(Any, infer_global)(symbol)
    class _Binary(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            return kind(kind, kind) if args == (kind, kind) else None

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return getattr(builder, instruction_name)(*values)

    lower_builtin(symbol, model, model)(generate)
