"""Threads: as many as torch may use, kept for the life of the process, and only where they pay."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

WORTH = 150_000.0  # nanoseconds of work below which handing a part to another thread costs more than it saves

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}  # by size: threads of the process may want different numbers at once


def parts(nanoseconds: float, most: int) -> int:
    """Into how many parts work of that length is worth cutting: 1 to `most`, at most torch.get_num_threads()."""
    return max(1, min(torch.get_num_threads(), most, int(nanoseconds / WORTH)))


def in_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all calls, the first one run here and the others on other threads as far as torch has them."""
    threads = torch.get_num_threads()
    if len(calls) < 2 or threads < 2:
        return [call() for call in calls]
    others = [_executor(threads - 1).submit(call) for call in calls[1:]]
    first = calls[0]()
    return [first, *(other.result() for other in others)]


def _executor(workers: int) -> ThreadPoolExecutor:
    with _lock:
        if workers not in _pools:
            _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="sparsernn")
        return _pools[workers]


def _forget() -> None:
    # The threads of a pool don't come along into a forked process.
    global _lock
    _pools.clear()
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
