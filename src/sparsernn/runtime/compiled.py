"""Compiled kernels: each is machine code for this processor, made once and kept on disk.

A kernel is a Python function of int64 arguments (addresses and sizes) in one of the modules of this folder or of
kernels/, or one that a layout makes ("layouts.panel"), compiled by numba at its first use. The object code is kept
(kept.py), so that later processes load it in milliseconds and need not even import numba.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import importlib.metadata
import json
import os
import sys
import threading
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm

from ..structure import cells
from . import kept, lowered
from .processor import processor

_MEMORY: dict[str, Any] = {"memset": ctypes.memset, "memmove": ctypes.memmove, "memcpy": ctypes.memmove}
_lock = threading.RLock()
_addresses: dict[str, int] = {}
_engines: list[Any] = []  # code lives as long as its engine


def _hash_of_sources(folder: Path = Path(__file__).parent) -> str | None:
    """Hash of every source file that kernels are made of: one bakes in constants of more files than its own."""
    digest = hashlib.sha256()
    files = sorted([*folder.glob("*.py"), *folder.glob("kernels/*.py"), *folder.glob("layouts/*.py")])
    for file in [*files, Path(cells.__file__)]:
        content = file.read_bytes()
        name = file.relative_to(folder) if file in files else Path("..", file.name)
        digest.update(f"{name.as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest() if files else None


# Taken while the sources are being imported, so that it is of the code that runs, not of files exchanged later.
_SOURCES = _hash_of_sources()


@functools.cache
def _fingerprint() -> str:
    """Hash of everything that a kernel's code depends on, its own name apart."""
    versions = [importlib.metadata.version(package) for package in ("numba", "llvmlite")]
    said = [_SOURCES, versions, sys.version, sys.platform, processor().fingerprint]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def address(name: str) -> int:
    """Address of the compiled kernel `name` ("layouts.panel"), loaded from the cache or compiled now."""
    found = _addresses.get(name)
    if found is not None:
        return found
    with _lock:
        if name not in _addresses:
            code = kept.read(name, _fingerprint()) if _SOURCES else None
            found = None if code is None else _load(name, code)
            if found is None:
                code = _compile(name)
                if _SOURCES and _hash_of_sources() == _SOURCES:
                    kept.write(name, _fingerprint(), code)
                found = _load(name, code)
            if found is None:
                raise RuntimeError(f"The compiled kernel {name} can't be loaded on this machine.")
            _addresses[name] = found
        return _addresses[name]


@functools.cache
def function(name: str, arguments: int) -> Any:
    """Kernel `name` as a ctypes function of `arguments` int64s; the interpreter lock is free while it runs."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(address(name))


def _symbol(name: str) -> str:
    """What the kernel is called in its object code, so that no other kernel's code can be taken for it."""
    return f"sparsernn.{name}"


def _kernel(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    found = importlib.import_module(f"{__package__}.{module}")
    return found.LAYOUTS[attribute].kernel() if module == "layouts" else getattr(found, attribute)


def _compile(name: str) -> bytes:
    """Object code of a kernel."""
    text = lowered.read(name, _SOURCES) if _SOURCES else None
    return _machine().emit_object(_by_numba(name) if text is None else llvm.parse_assembly(text))


def _by_numba(name: str) -> Any:
    """LLVM's code of a kernel, optimised."""
    from numba import types
    from numba.core.ccallback import CFunc

    kernel = _kernel(name)
    count = kernel.__code__.co_argcount
    signature = ((types.int64,) * count, types.void)
    compiled = CFunc(kernel, signature, {}, {"nopython": True, "error_model": "numpy", "boundscheck": False})
    compiled.compile()
    return _alone(compiled.inspect_llvm(), compiled.native_name, _symbol(name))


def lower(folder: Path) -> Path:
    """Write LLVM's code of every kernel of this kind of processor into an archive in `folder` (lowered.py)."""
    if _SOURCES is None:
        raise RuntimeError("Kernels are lowered where their sources are files.")
    return lowered.write(folder, {name: str(_by_numba(name)) for name in _every()}, _SOURCES)


def _every() -> list[str]:
    """The names of all kernels: those of layouts, and the plain functions of int64 arguments in modules of kernels."""
    here = Path(__file__).parent
    modules = ["cells", "chain", "products", "sequence", "whole"]
    modules += [f"kernels.{file.stem}" for file in sorted((here / "kernels").glob("[!_]*.py"))]
    layouts = importlib.import_module(f"{__package__}.layouts").LAYOUTS
    found = [f"layouts.{name}" for name, layout in layouts.items() if layout.runs_on(processor())]
    for module in modules:
        content = vars(importlib.import_module(f"{__package__}.{module}"))
        own = [k for k, v in content.items() if isinstance(v, FunctionType) and v.__module__.endswith(f".{module}")]
        found += [f"{module}.{name}" for name in own if not name.startswith("_")]
    return found


def _alone(code: str, entry: str, symbol: str) -> Any:
    """The module with `entry` alone, as `symbol`: numba's ways of raising errors, which kernels never do, fall away."""
    module = llvm.parse_assembly(code)
    module.get_function(entry).name = symbol
    for function_ in module.functions:
        if not function_.is_declaration and function_.name != symbol:
            function_.linkage = "internal"
    machine = _machine()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    # A symbol that is missing at load time would silently become address zero.
    needed = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    if strange := needed - set(_MEMORY):
        raise RuntimeError(f"The kernel {symbol} depends on {', '.join(sorted(strange))}.")
    return module


def _machine() -> Any:
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


def _load(name: str, code: bytes) -> int | None:
    """The address of the kernel in its object code; None if it is not there."""
    _offer_memory_functions()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    try:
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    except RuntimeError:
        return None
    engine.finalize_object()
    found = engine.get_function_address(_symbol(name))
    _engines.append(engine)
    return found or None


@functools.cache
def _offer_memory_functions() -> None:
    # LLVM makes calls of these out of plain loops, and finds only symbols that it was told of.
    for name, found in _MEMORY.items():
        place = ctypes.cast(found, ctypes.c_void_p).value
        assert place
        llvm.add_symbol(name, place)


def _forget() -> None:
    # A thread that compiles does not come along into a forked process, but its lock would.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
