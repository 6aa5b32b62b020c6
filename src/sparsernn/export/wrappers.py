"""The C step in other languages and places: C++, Python, Rust, an Arduino library, a web page with an AudioWorklet."""

from __future__ import annotations

from collections.abc import Callable

from .footprint import state_bytes
from .lowering import Argument, Plan
from .places import C_TYPES
from .source import named
from .web import web

RUST_TYPES = {"float": "f32", "int": "i32", "bool": "u8"}
NUMPY_NAMES = {"float": "float32", "int": "int32", "bool": "uint8"}
Files = dict[str, str]


def _all(plan: Plan) -> list[tuple[Argument, bool]]:
    """The arguments of a step, and whether it writes them."""
    return [*((a, False) for a in plan.inputs), *((a, True) for a in plan.outputs)]


def cpp(plan: Plan, name: str, files: Files) -> Files:
    """NAME.hpp: a class that holds the state."""
    arguments = [f"{'' if out else 'const '}{C_TYPES[a.place.dtype]} (&{a.place.array})[{a.place.size}]"
                 for a, out in _all(plan)]  # fmt: skip
    given = ", ".join(["&state_", *(a.place.array for a, _ in _all(plan))])
    text = f"""\
#ifndef ${{H}}PP
#define ${{H}}PP

#include "$.h"

/* One sequence. A copy is a snapshot; objects share nothing but tables. */
class $net {{
public:
    $net() noexcept {{ reset(); }}

    /* The start of a sequence. */
    void reset() noexcept {{ $reset(&state_); }}

    /* One time step; false for a token out of range: then nothing was done. */
    bool step({", ".join(arguments)}) noexcept {{ return $step({given}) == 0; }}

private:
    $state state_;
}};

#endif
"""
    return {f"{name}.hpp": named(text, name)}


def python(plan: Plan, name: str, files: Files) -> Files:
    """NAME.py: ctypes and numpy."""
    ports = [[(a.place.array, a.place.shape, NUMPY_NAMES[a.place.dtype]) for a in side]
             for side in (plan.inputs, plan.outputs)]  # fmt: skip
    text = f'''\
"""One time step of {name} in C: cc -O2 -shared -fPIC {name}.c -o lib{name}.so"""

import ctypes

import numpy as np

INPUTS = {ports[0]!r}
OUTPUTS = {ports[1]!r}
STATE = {state_bytes(plan)}  # bytes


class Model:
    """One sequence. `step(*inputs)` gives the outputs as arrays; `bytes(model.state)` is a snapshot."""

    def __init__(self, library="./lib{name}.so"):
        self._code = ctypes.CDLL(library)
        self.state = (ctypes.c_uint32 * -(-STATE // 4))()
        self.outputs = [np.zeros(shape, dtype) for _, shape, dtype in OUTPUTS]
        self.reset()

    def reset(self):
        self._code.{name}_reset(self.state)

    def step(self, *inputs):
        given = []
        for x, (name, shape, dtype) in zip(inputs, INPUTS, strict=True):
            x = np.ascontiguousarray(x, dtype)
            if x.size != np.prod(shape, dtype=int):
                raise ValueError(f"{{name}} has {{x.size}} numbers, expected the shape {{shape}}.")
            given.append(x)
        if self._code.{name}_step(self.state, *(ctypes.c_void_p(a.ctypes.data) for a in [*given, *self.outputs])):
            raise ValueError("a token is out of range")
        return [y.copy() for y in self.outputs]
'''
    return {f"{name}.py": text}


def rust(plan: Plan, name: str, files: Files) -> Files:
    """NAME.rs: extern "C" and a safe struct."""
    raw = ", ".join(f"{a.place.array}: *{'mut' if out else 'const'} {RUST_TYPES[a.place.dtype]}"
                    for a, out in _all(plan))  # fmt: skip
    safe = ", ".join(f"{a.place.array}: &{'mut ' if out else ''}[{RUST_TYPES[a.place.dtype]}; {a.place.size}]"
                     for a, out in _all(plan))  # fmt: skip
    given = ", ".join(f"{a.place.array}.as_{'mut_' if out else ''}ptr()" for a, out in _all(plan))
    text = f"""\
// One time step of {name} in C: compile {name}.c into the crate, by the crate `cc`, say.

#[repr(C)]
#[derive(Clone)]
struct State([u32; {-(-state_bytes(plan) // 4)}]);

extern "C" {{
    fn {name}_reset(s: *mut State);
    fn {name}_step(s: *mut State, {raw}) -> i32;
}}

/// One sequence. A clone is a snapshot.
#[derive(Clone)]
pub struct Model(State);

impl Model {{
    pub fn new() -> Self {{
        let mut model = Model(State([0; {-(-state_bytes(plan) // 4)}]));
        model.reset();
        model
    }}

    /// The start of a sequence.
    pub fn reset(&mut self) {{
        unsafe {{ {name}_reset(&mut self.0) }}
    }}

    /// One time step; false for a token out of range: then nothing was done.
    pub fn step(&mut self, {safe}) -> bool {{
        unsafe {{ {name}_step(&mut self.0, {given}) == 0 }}
    }}
}}
"""
    return {f"{name}.rs": text}


def arduino(plan: Plan, name: str, files: Files) -> Files:
    """A library folder: properties, sources, an example that runs the test vectors on the board."""
    properties = f"""\
name={name}
version=1.0.0
author=made by sparsernn
maintainer=made by sparsernn
sentence=One time step of the recurrent net {name}.
paragraph=Written by export_c: no heap, the same bits on every board with a float unit or library of IEEE's.
category=Data Processing
url=https://docs.arduino.cc/libraries/
architectures=*
includes={name}.h
"""
    example = f"""\
#include <{name}.h>

#if defined(__AVR__)
#error "{name}: the tables need a board with a flat memory: Arm, ESP32, RISC-V."
#endif

extern "C" int {name}_test(void);

void setup() {{
  Serial.begin(115200);
  const int step = {name}_test();
  if (step == 0)
    Serial.println("the same bits");
  else
    Serial.println(step);
}}

void loop() {{}}
"""
    sources = {f"{name}_arduino/src/{file}": text for file, text in files.items() if file.endswith((".c", ".h"))}
    return {
        f"{name}_arduino/library.properties": properties,
        **sources,
        f"{name}_arduino/examples/{name}_check/{name}_check.ino": example,
    }


WRAPPERS: dict[str, Callable[[Plan, str, Files], Files]] = {
    "c++": cpp,
    "python": python,
    "rust": rust,
    "arduino": arduino,
    "web": web,
}
