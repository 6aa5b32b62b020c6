"""The layouts of weight matrices on this processor. Each file of this folder brings its own in LAYOUTS."""

from __future__ import annotations

import importlib
import pkgutil

from ..held import Precision
from ..layout import Layout
from ..processor import processor


def _found() -> dict[str, Layout]:
    files = sorted(file.name for file in pkgutil.iter_modules(__path__))
    every = [layout for file in files for layout in importlib.import_module(f"{__name__}.{file}").LAYOUTS]
    return {layout.name: layout for layout in sorted(every, key=lambda layout: not layout.surest)}


LAYOUTS: dict[str, Layout] = _found()


def multiplied(precision: Precision) -> Precision:
    """What products of weights in `precision` are on this processor: without VNNI those of int8 are of float32."""
    return "float32" if precision == "int8" and not processor().vnni else precision


def offered(precision: Precision) -> list[str]:
    """Names of the layouts for a precision on this processor, dense panels first."""
    own = multiplied(precision)
    return [name for name, layout in LAYOUTS.items() if own in layout.precisions and layout.runs_on(processor())]
