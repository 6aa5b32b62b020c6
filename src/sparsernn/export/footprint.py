"""What a C file takes of a device: bytes of tables and state, multiply-adds of a step."""

from __future__ import annotations

from typing import Any

from .clocks import counted
from .files import ARRAY_TYPES, FORMAT
from .lowering import Argument, Plan

_BYTES = {"float": 4, "int32_t": 4, "uint8_t": 1, "int8_t": 1}


def footprint(plan: Plan, name: str, precision: str, errors: dict[str, float]) -> dict[str, Any]:
    """The content of NAME.json."""
    tables = plan.tables.bytes_by_type()
    return {
        "name": name,
        "format": FORMAT,
        "precision": precision,
        "inputs": [_port(a) for a in plan.inputs],
        "outputs": [_port(a) for a in plan.outputs],
        "flash": {"tables": sum(tables.values()), "by_type": tables},
        "ram": {"state": state_bytes(plan)},
        "multiply_adds": plan.multiply_adds,
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


def _port(argument: Argument) -> dict[str, Any]:
    place, port = argument.place, argument.port
    return {"name": port.name, "argument": place.array, "shape": list(place.shape), "type": place.dtype,
            "due": str(port.clock)}  # fmt: skip
