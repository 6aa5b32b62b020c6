"""Compiled kernels: each is machine code for this processor, made once and kept on disk.

A kernel is a Python function of int64 arguments (addresses and sizes) in one of the modules of `_MODULES`, compiled by
numba at its first use. The object code goes to the user's own cache folder (mode 0700), so that later processes load
it in milliseconds and need not even import numba. A file is used only if the whole of its content has the recorded
sha256 and its name the hash of everything that the code depends on: sources, versions, processor, vector width.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import importlib.metadata
import json
import os
import stat
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from .._files import write_atomically
from .processor import processor

_MODULES = ("products", "sparse", "bitmask", "integers", "cells", "sequence", "chain")
_FORMAT = b"sparsernn kernel 1\n"
_MEMORY: dict[str, Any] = {"memset": ctypes.memset, "memmove": ctypes.memmove, "memcpy": ctypes.memmove}
_lock = threading.RLock()
_engines: list[Any] = []  # code lives as long as its engine


@functools.cache
def address(name: str) -> int:
    """Address of the compiled kernel `name` ("products.panel"), loaded from the cache or compiled now."""
    with _lock:
        path = _cache_file(name)
        found = _read(path) if path else None
        if found is None:
            found = _compile(name)
            if path is not None:
                _write(path, *found)
        return _load(*found)


@functools.cache
def function(name: str, arguments: int) -> Any:
    """Kernel `name` as a ctypes function of `arguments` int64s; the interpreter lock is free while it runs."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(address(name))


def _compile(name: str) -> tuple[str, bytes]:
    """Symbol and object code of a kernel."""
    from numba import types
    from numba.core.ccallback import CFunc

    module, _, attribute = name.partition(".")
    kernel = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    count = kernel.__code__.co_argcount
    signature = ((types.int64,) * count, types.void)
    compiled = CFunc(kernel, signature, {}, {"nopython": True, "error_model": "numpy", "boundscheck": False})
    compiled.compile()
    return compiled.native_name, _machine().emit_object(_alone(compiled.inspect_llvm(), compiled.native_name))


def _alone(code: str, symbol: str) -> Any:
    """The module with `symbol` as its only entry: numba's ways of raising errors, which kernels never do, fall away."""
    module = llvm.parse_assembly(code)
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


def _load(symbol: str, code: bytes) -> int:
    _offer_memory_functions()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    found = engine.get_function_address(symbol)
    if not found:
        raise RuntimeError(f"The compiled kernel has no symbol {symbol}: delete the folder {cache_folder()}.")
    _engines.append(engine)
    return found


@functools.cache
def _offer_memory_functions() -> None:
    # LLVM makes calls of these out of plain loops, and finds only symbols that it was told of.
    for name, found in _MEMORY.items():
        place = ctypes.cast(found, ctypes.c_void_p).value
        assert place
        llvm.add_symbol(name, place)


@functools.cache
def _fingerprint() -> str:
    """Hash of everything that a kernel's code depends on, its own name apart."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for part in ("vector", "tiles", "quantise", "processor", "compiled", *_MODULES):
        file = here / f"{part}.py"
        digest.update(part.encode() + b"\0" + (file.read_bytes() if file.exists() else b""))
    versions = [importlib.metadata.version(package) for package in ("numba", "llvmlite")]
    digest.update(json.dumps([versions, sys.version, sys.platform, processor().fingerprint]).encode())
    return digest.hexdigest()


def cache_folder() -> Path | None:
    """The folder of compiled kernels, or None if it can't be the user's own alone (then nothing is kept).

    `SPARSERNN_CACHE` names another one; an empty value turns the cache off.
    """
    chosen = os.environ.get("SPARSERNN_CACHE")
    if chosen == "":
        return None
    if chosen is not None:
        folder = Path(chosen)
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "sparsernn" / "kernels"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches" / "sparsernn" / "kernels"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparsernn" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        _say(f"Compiled kernels can't be kept in {folder} ({error.strerror}): set SPARSERNN_CACHE.")
        return None
    # Whoever can write here can run code as this user.
    if os.name == "posix" and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022):
        _say(f"No compiled kernels are read from {folder}, which others can write to: chmod 700 it.")
        return None
    return folder


@functools.cache
def _say(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=2)


def _cache_file(name: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / f"{name}-{_fingerprint()[:24]}.kernel"


def _read(path: Path) -> tuple[str, bytes] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not content.startswith(_FORMAT):
        return None
    header, _, code = content[len(_FORMAT) :].partition(b"\n")
    try:
        said = json.loads(header)
        whole = said["sha256"] == hashlib.sha256(code).hexdigest()
        return (str(said["symbol"]), code) if whole else None
    except (ValueError, KeyError, TypeError):
        return None


def _clear(path: Path) -> None:
    """Remove what other versions left of this kernel a month ago or earlier."""
    name = path.name.rpartition("-")[0]
    for old in path.parent.glob(f"{name}-*.kernel"):
        with contextlib.suppress(OSError):
            if old != path and time.time() - old.stat().st_mtime > 30 * 86400:
                old.unlink()


def _write(path: Path, symbol: str, code: bytes) -> None:
    _clear(path)
    header = json.dumps({"symbol": symbol, "sha256": hashlib.sha256(code).hexdigest()}).encode()
    try:
        write_atomically(path, _FORMAT + header + b"\n" + code)
    except OSError as error:
        _say(f"A compiled kernel could not be kept in {path.parent} ({error.strerror}).")
