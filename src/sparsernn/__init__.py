"""sparsernn makes recurrent networks small and fast, and proves it.

`from_onnx` reads a model from a file, `trace` finds what can go, `fold`, `factorise`, `Shrink`, `Prune`, `Rewire`,
`GroupLasso`, `L1` and `Bayes` choose what should go, `Rewind`, `distill` and `quantise_aware` train what is left,
`compact` takes out exactly what is dead, `accelerate` runs the rest, `inspect` and `benchmark` show what happened, and
`save`, `load`, `export_onnx` and `export_c` hand it on.
"""

from . import nn as nn
from ._milliseconds import milliseconds as milliseconds
from ._version import __version__ as __version__
from .analysis.sparsity import inspect as inspect
from .checkpoints import load as load
from .export.export_c import export_c as export_c
from .export.flash import flash_bytes as flash_bytes
from .learn.at_start import SNIP as SNIP
from .learn.at_start import GraSP as GraSP
from .learn.at_start import SynFlow as SynFlow
from .learn.averaged import SNTASGD as SNTASGD
from .learn.bayes import Bayes as Bayes
from .learn.distill import distill as distill
from .learn.distill import distillation_loss as distillation_loss
from .learn.factorise import factorise as factorise
from .learn.fold import fold as fold
from .learn.l1 import L1 as L1
from .learn.lasso import GroupLasso as GroupLasso
from .learn.paths.fade import Fade as Fade
from .learn.paths.fold import Fold as Fold
from .learn.paths.hard_concrete import HardConcrete as HardConcrete
from .learn.paths.top_k import TopK as TopK
from .learn.prune import Prune as Prune
from .learn.quantise_aware import quantise_aware as quantise_aware
from .learn.rewind import Rewind as Rewind
from .learn.rewire import Rewire as Rewire
from .learn.schedules import Gradual as Gradual
from .learn.schedules import Iterative as Iterative
from .learn.schedules import OneShot as OneShot
from .learn.scores import Magnitude as Magnitude
from .learn.scores import Movement as Movement
from .learn.scores import Random as Random
from .learn.scores import StandardDeviation as StandardDeviation
from .learn.scores import Taylor as Taylor
from .learn.shrink import Shrink as Shrink
from .reading import from_onnx as from_onnx
from .runtime.delta_thresholds import delta_thresholds as delta_thresholds
from .runtime.layers import accelerate as accelerate
from .structure.cells import Cell as Cell
from .structure.cells import register_cell as register_cell
from .structure.trace import trace as trace
from .surgery.checkpoint import save as save
from .surgery.compact import compact as compact
from .surgery.onnx import export_onnx as export_onnx
from .timing import benchmark as benchmark
