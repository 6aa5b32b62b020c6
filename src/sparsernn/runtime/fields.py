"""Where the numbers of a whole-sequence call stand: int64 fields, written from Python, read by compiled code."""

from __future__ import annotations

from enum import IntEnum, auto


class Field(IntEnum):
    """One layer and direction over a whole sequence. Addresses and strides are in bytes."""

    STEPS = 0
    ROWS = auto()  # batch rows; with SIZES, the most rows of any step
    REVERSE = auto()
    SIZES = auto()  # packed sequences: address of the active rows of each step, else 0
    STARTS = (
        auto()
    )  # packed sequences: address of the first packed row of each step, and behind them the number of rows
    X = auto()
    X_TIME = auto()
    X_ROW = auto()
    INPUT_KERNEL = auto()
    INPUT_PLAN = auto()
    GATES = auto()  # workspace of pre-activations, CAPACITY rows
    GATES_STRIDE = auto()
    CAPACITY = auto()
    HIDDEN_KERNEL = auto()
    HIDDEN_PLAN = auto()
    DEPTHS = auto()  # further products and cells of a time step, beside the first
    DEEPER = auto()  # address of their kernels and plans, pair by pair
    RECURRENT = auto()  # what the hidden product reads: the state, or the projected state
    RECURRENT_STRIDE = auto()
    CELL_KERNEL = auto()
    UNITS = auto()  # blocks of units
    LANES = auto()
    H = auto()
    C = auto()  # bytes from h to c
    STATE_STRIDE = auto()
    OUT = auto()  # 0: no output wanted
    OUT_TIME = auto()
    OUT_ROW = auto()
    PROJECT_KERNEL = auto()  # 0: no projection
    PROJECT_PLAN = auto()
    PROJECT_LANES = auto()
    SCRATCH = auto()
    PLACE = auto()  # scratch: the output address and stride of the step at hand
    PLACE_STRIDE = auto()


COUNT = len(Field)
