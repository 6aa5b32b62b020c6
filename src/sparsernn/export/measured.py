"""What a step takes of other processors: bytes of code, instructions, stack; by a compiler and emulators at hand."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from math import lcm
from pathlib import Path
from typing import Any

from ..extras import require
from .clocks import counted
from .emulator import Emulated
from .files import header, source
from .lowering import Plan
from .machines import EMULATED, built, code_bytes, compiled, missing
from .places import C_TYPES
from .source import named

MOST_STEPS = 16
LEVEL = "-O2"


def on_processors(plan: Plan, name: str, vectors: str, most: int) -> dict[str, Any]:
    """Processor -> {"code", "stack": bytes, "instructions": of a step}; what can't be had is not in it.

    vectors: the text of NAME_test.c, whose inputs, of `most` steps, are taken. Instructions are counted, not timed: how
    many cycles they take is another matter. Steps that differ are averaged. Raises ImportError without a compiler.
    """
    require("ziglang", "measure=True, as a compiler for other processors,")
    plan = replace(plan, filed=False)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sparsernn-") as aside:
        folder = Path(aside)
        (folder / f"{name}.h").write_text(header(plan, name))
        (folder / f"{name}.c").write_text(source(plan, name))
        steps = min(most, _period(plan))
        (folder / "sparsernn_one.c").write_text(f'#include "{name}.c"\n{vectors}\n{_calls(plan, name, steps)}')
        for target in EMULATED:
            code = code_bytes(compiled(folder / f"{name}.c", target, level=LEVEL).read_bytes())
            found[target] = {"code": code}
            if not missing("unicorn"):
                emulated = Emulated(built(folder, folder / "sparsernn_one.c", "sparsernn_one", target), target)
                emulated.call(count=True)
                found[target] |= {"stack": emulated.stack, "instructions": round(emulated.instructions / steps)}
    return found


def _period(plan: Plan) -> int:
    """How many steps are all kinds of steps; none is more than MOST_STEPS."""
    if not counted(plan):
        return 1
    clocks = [t.clock for t in plan.timed] + [a.port.clock for a in plan.outputs]
    return min(MOST_STEPS, lcm(*(c.every for c in clocks)) + max(0, *(c.first for c in clocks)))


def _calls(plan: Plan, name: str, steps: int) -> str:
    """C: `sparsernn_one` runs the first steps of the vectors."""
    outputs = "".join(
        f"static {C_TYPES[a.place.dtype]} sparsernn_y{k}[{a.place.size}];\n" for k, a in enumerate(plan.outputs)
    )
    given = [f"$given_{k} + t * {a.place.size}" for k, a in enumerate(plan.inputs)]
    arguments = ", ".join(["&state", *given, *(f"sparsernn_y{k}" for k in range(len(plan.outputs)))])
    body = f"""\
{outputs}int sparsernn_one(void);
int sparsernn_one(void)
{{
    static $state state;
    for (int t = 0; t < {steps}; ++t)
        $step({arguments});
    return 0;
}}
"""
    return named(body, name)
