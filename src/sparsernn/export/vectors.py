"""NAME_test.c: inputs and what the oracle makes of them, for a compiler and a processor to be tried with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .clocks import due
from .files import table_text
from .kernels import pieces
from .lowering import Plan
from .places import C_TYPES
from .source import named

_TYPES = {"float": np.float32, "int": np.int32, "bool": np.uint8}
Step = Sequence[np.ndarray]


def vectors_source(
    plan: Plan, name: str, inputs: Sequence[Sequence[np.ndarray]], outputs: Sequence[Sequence[np.ndarray | None]]
) -> str:
    """NAME_test.c: what the model gives for some steps; NAME_test() is 0, or the number of the first that differs."""
    steps = len(inputs)
    tables, calls = [], []
    for k, argument in enumerate(plan.inputs):
        array = np.stack([np.asarray(one[k]).reshape(-1) for one in inputs])
        array = array.astype(_TYPES[argument.place.dtype])
        tables.append(table_text(f"$given_{k}", array))
        calls.append(f"$given_{k} + t * {argument.place.size}")
    checks, locals_ = [], []
    for k, argument in enumerate(plan.outputs):
        size, dtype = argument.place.size, argument.place.dtype
        kind = C_TYPES[dtype]
        array = np.zeros((steps, size), _TYPES[dtype])
        for t, one in enumerate(outputs):
            value = one[k]
            if value is not None:
                array[t] = value.reshape(-1)
        tables.append(table_text(f"$expected_{k}", array))
        locals_.append(f"    {kind} y{k}[{size}];")
        calls.append(f"y{k}")
        condition = due(argument.port.clock).replace("s->number", "(uint32_t)t")
        checks.append(f"        for (int k = 0; k < {size}; ++k)")
        both = f"y{k}[k]", f"$expected_{k}[t * {size} + k]"
        other = f"!$same({', '.join(both)})" if dtype == "float" else " != ".join(both)
        checks.append(f"            if ({condition + ' && ' if condition else ''}{other})")
        checks.append("                return t + 1;")
    given = "const void *file" if plan.filed else "void"
    floats = any(a.place.dtype == "float" for a in plan.outputs)
    text = "\n".join(
        [
            '#include "$.h"\n',
            *pieces("".join(tables)),
            "/* Compiled with -D$MAIN it is a program. */",
            f"int $test({given});\n",
            *tables,
            _SAME if floats else "",
            "/* 0 if every step gives the bits of the reference, else the number of the first step that doesn't. */",
            f"int $test({given})\n{{\n    static $state state;",
            *locals_,
            "    $reset(&state);",
            f"    for (int t = 0; t < {steps}; ++t) {{",
            f"        if ($step({', '.join(['&state', *(['file'] if plan.filed else []), *calls])}))",
            "            return t + 1;",
            *checks,
            "    }\n    return 0;\n}\n",
            _FILED if plan.filed else "#ifdef $MAIN\nint main(void)\n{\n    return $test();\n}\n#endif\n",
        ]
    )
    return named(text, name)


_SAME = """\
/* Whether these are the same bits; what is no number has any. */
static int $same(const float a, const float b)
{
    const union {
        float number;
        uint32_t bits;
    } one = {a}, other = {b};
    return one.bits == other.bits || (a != a && b != b);
}
"""
_FILED = """\
#ifdef $MAIN
#include <stdio.h>

static uint32_t read[${WEIGHTS} / 4];

int main(int count, char **arguments)
{
    FILE *const file = fopen(count > 1 ? arguments[1] : "$.bin", "rb");
    if (!file || fread(read, 1, sizeof read, file) != sizeof read || $open(read, sizeof read)) {
        fprintf(stderr, "there is no $.bin of this model\\n");
        return 1;
    }
    fclose(file);
    return $test(read);
}
#endif
"""
