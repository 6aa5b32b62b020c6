"""The texts of NAME.h and NAME.c."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from .blob import DECLARED, names, offsets, opened
from .clocks import counted, counting, due, due_function
from .kernels import PRELUDE, pieces
from .lowering import SCRATCH, Argument, Plan
from .maps import copy
from .places import C_TYPES
from .source import Source, named, numbers

ARRAY_TYPES = {"f": "float", SCRATCH: "float", "i": "int32_t", "b": "uint8_t", "q": "int8_t"}
TABLE_TYPES = {"float32": "float", "int32": "int32_t", "bool": "uint8_t", "uint8": "uint8_t", "uint16": "uint16_t",
               "int8": "int8_t"}  # fmt: skip
FORMAT = 1  # of the state's layout and of the functions' arguments
_CONTENT = {"f": "states and results", SCRATCH: "scratch", "i": "integers", "b": "conditions", "q": "inputs in int8"}


def header(plan: Plan, name: str) -> str:
    """NAME.h: sizes, the state, the functions."""
    single = len(plan.inputs) == 1, len(plan.outputs) == 1
    sizes = [_size(a, "INPUTS", single[0]) for a in plan.inputs] + [
        _size(a, "OUTPUTS", single[1]) for a in plan.outputs
    ]
    sizes += [f"#define ${{WEIGHTS}} {offsets(plan.tables)['']} /* bytes of $.bin */"] if plan.filed else []
    fields = [f"    {ARRAY_TYPES[k]} {k}[{n}]; /* {_CONTENT[k]} */" for k, n in plan.sizes.items() if n]
    fields += ["    uint32_t number; /* of the next step */"] if counted(plan) else []
    fields = fields or ["    float f[1]; /* C has no empty struct */"]
    due = ["", "/* Which outputs the next step will write: bit k for the k-th. The others it leaves alone. */",
           "int $due(const $state *s);", ""]  # fmt: skip
    text = f"""\
#ifndef ${{H}}
#define ${{H}}

#include <stdint.h>

{chr(10).join(sizes)}
#define ${{FORMAT}} {FORMAT}

/* All that a running model remembers; no pointers in it: a copy of it is a snapshot. */
typedef struct $state {{
{chr(10).join(fields)}
}} $state;

#ifdef __cplusplus
extern "C" {{
#endif

/* The start of a sequence. */
void $reset($state *s);

/* One time step. Returns 0, or {_refusal(plan)} */
int $step({_parameters(plan)});
{DECLARED if plan.filed else ""}{chr(10).join(due) if counted(plan) else ""}
#ifdef __cplusplus
}}
#endif

#endif
"""
    return named(text, name)


def _refusal(plan: Plan) -> str:
    if plan.bounds:
        return "1 for a token out of range: then nothing was done."
    return "nothing else: every input is taken."


def _size(argument: Argument, kind: str, single: bool) -> str:
    label = kind if single else f"{kind}_{argument.place.array}"
    shape = " x ".join(map(str, argument.place.shape)) or "1"
    return f"#define ${{{label}}} {argument.place.size} /* {argument.port.name}: {shape}, {argument.port.clock} */"


def _parameters(plan: Plan) -> str:
    read = [f"const {C_TYPES[a.place.dtype]} *{a.place.array}" for a in plan.inputs]
    state = ["$state *s", *(["const void *file"] if plan.filed else [])]
    return ", ".join([*state, *read, *(f"{C_TYPES[a.place.dtype]} *{a.place.array}" for a in plan.outputs)])


def source(plan: Plan, name: str) -> str:
    """NAME.c."""
    body = Source()
    body.lines += _checks(plan)
    begun = len(body.lines)
    clock = None
    for timed in plan.timed:
        condition = due(timed.clock)
        if condition != clock:
            body.lines += [*(["    }"] if clock else []), *([f"    if ({condition}) {{"] if condition else [])]
            clock = condition
        body.lines.append(f"    /* {timed.title} */")
        for step in timed.steps:
            step.write(body)
    body.lines += ["    }"] if clock else []
    for argument in plan.outputs:
        condition = due(argument.port.clock)
        body.lines += [f"    if ({condition}) {{"] if condition else []
        copy(argument.inside, argument.place).write(body)
        body.lines += ["    }"] if condition else []
    used = " ".join(line for line in body.lines[begun:] if "/*" not in line)
    arrays = [
        f"    {ARRAY_TYPES[k]} *const {k} = s->{k};"
        for k, n in plan.sizes.items()
        if n and re.search(rf"\b{k}\b", used)
    ]
    after = counting(plan) if counted(plan) else []
    parts = [
        *_tables(plan),
        *body.functions.values(),
        _reset(plan),
        due_function(plan) if counted(plan) else "",
        f"int $step({_parameters(plan)})\n{{",
        *(["    const unsigned char *const weights = (const unsigned char *)file;"] if plan.filed else []),
        *arrays,
        *body.lines,
        *after,
        *(["    (void)weights;"] if plan.filed else []),
        "    (void)s;",
        "    return 0;\n}\n",
    ]
    rest = "\n".join(parts)
    text = "\n".join(['#include "$.h"\n\n#include <float.h>\n', PRELUDE, *pieces(rest), rest])
    return named(text, name)


def _checks(plan: Plan) -> Iterable[str]:
    for argument in plan.inputs:
        rows = plan.bounds.get(argument.port.view.buffer)
        if rows is not None:
            yield f"    for (int k = 0; k < {argument.place.size}; ++k)"
            yield f"        if ({argument.place.array}[k] < 0 || {argument.place.array}[k] >= {rows})"
            yield "            return 1;"


def table_text(name: str, array: np.ndarray) -> str:
    kind = TABLE_TYPES[array.dtype.name]
    return "\n".join([f"static const {kind} {name}[{array.size}] = {{", *numbers(array), "};\n"])


def _tables(plan: Plan) -> list[str]:
    if plan.filed:
        return [*names(plan.tables, TABLE_TYPES), "", opened(plan.tables)]
    return [table_text(n, a) for n, a in plan.tables.arrays.items()]


def _reset(plan: Plan) -> str:
    lines, tables = [], []
    for array, size in plan.sizes.items():
        if not size:
            continue
        zero = "0.0f" if ARRAY_TYPES[array] == "float" else "0"
        lines.append(f"    for (int k = 0; k < {size}; ++k)")
        if array in plan.start:
            tables.append(table_text(f"$start_{array}", plan.start[array]))
            lines.append(f"        s->{array}[k] = $start_{array}[k];")
        else:
            lines.append(f"        s->{array}[k] = {zero};")
    lines += ["    s->number = 0u;"] if counted(plan) else []
    lines = lines or ["    s->f[0] = 0.0f;"]
    return "\n".join([*tables, "void $reset($state *s)\n{", *lines, "}\n"])
