"""What a C file takes of a device: bytes of tables, code, state and stack, multiply-adds and instructions of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .clocks import counted
from .files import ARRAY_TYPES, FORMAT
from .lowering import Argument, Plan

_BYTES = {"float": 4, "int32_t": 4, "uint8_t": 1, "int8_t": 1}
STATEMENT = 20  # bytes of code; programs of many kinds have 6 to 21 on a Cortex-M4: rather too many than too few
MAIN = "Cortex-M4"  # whose measured figures stand beside the exact ones


def footprint(
    plan: Plan, name: str, precision: str, errors: dict[str, float], code: str, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of NAME.json. code: the text of NAME.c; measured: what `measure` found, empty if it didn't look."""
    tables = plan.tables.bytes_by_type()
    main = measured.get(MAIN, {})
    flash = {"tables": sum(tables.values()), "by_type": tables, "code": main.get("code", estimated_code(code))}
    flash["code_is"] = f"measured for {MAIN}" if main else "estimated"
    return {
        "name": name,
        "format": FORMAT,
        "precision": precision,
        "inputs": [_port(a) for a in plan.inputs],
        "outputs": [_port(a) for a in plan.outputs],
        "flash": flash,
        "ram": {"state": state_bytes(plan)} | ({"stack": main["stack"]} if "stack" in main else {}),
        "multiply_adds": plan.multiply_adds,
        "measured": dict(measured),
        "errors": errors,
        "delay": plan.program.delay,
        "operations": plan.program.explain().splitlines()[1:],
    }


def state_bytes(plan: Plan) -> int:
    """sizeof(NAME_state)."""
    total = sum(size * _BYTES[ARRAY_TYPES[k]] for k, size in plan.sizes.items() if _BYTES[ARRAY_TYPES[k]] == 4)
    small = sum(size for k, size in plan.sizes.items() if _BYTES[ARRAY_TYPES[k]] == 1)
    if not total and not counted(plan):
        return small or 4
    total += 4 if counted(plan) else 0
    return total + -(-small // 4) * 4


def estimated_code(text: str) -> int:
    """Bytes of machine code, by the number of statements of NAME.c outside its tables."""
    return STATEMENT * re.sub(r"= \{[^{}]*\};", "", text).count(";")


def _port(argument: Argument) -> dict[str, Any]:
    place, port = argument.place, argument.port
    return {"name": port.name, "argument": place.array, "shape": list(place.shape), "type": place.dtype,
            "due": str(port.clock)}  # fmt: skip
