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
    ZERO = auto()  # 1: the first step needs no recurrent product, since the state is zero and the weights are finite


COUNT = len(Field)


class Call(IntEnum):
    """One call of a stack of layers, behind the sample of weights that it looks at first. Strides are in bytes."""

    SAMPLE = 0  # address of pairs: where a number of a weight stands, and the 32 bits that it had when packed
    SAMPLES = auto()
    STALE = auto()  # set to 1 where a number differs; then nothing was run
    KERNEL = auto()
    ARGUMENT = auto()
    ENTRIES = auto()  # address of the `Entry`s; those from FIRST to before LAST are run
    LAYER = auto()  # address of the kernel of one layer and direction
    # What a call of one shape always has,
    FIRST = auto()
    LAST = auto()
    X_TIME = auto()
    X_ROW = auto()
    OUT_TIME = auto()
    OUT_ROW = auto()
    STEPS = auto()
    BATCH = auto()  # rows of states and outputs, of which this call runs ROWS from ROW on
    ROW = auto()
    ROWS = auto()
    SIZES = auto()
    STARTS = auto()
    HALF = auto()  # bytes from one buffer to the other
    # and what is another one at each call.
    X = auto()
    OUTPUT = auto()  # of the last layer; 0: no output wanted
    BETWEEN = auto()  # what one layer hands to the next: two buffers by turns
    H0 = auto()  # states that stand side by side, layer by layer and direction by direction; 0: zeros
    C0 = auto()
    HN = auto()
    CN = auto()


class Entry(IntEnum):
    """One layer and direction of a stack."""

    FIELDS = 0  # address of its `Field`s
    NUMBER = auto()  # of its layer
    INPUT = auto()  # bytes of a row of the layer before
    WIDTH = auto()  # bytes of a row of this layer, all directions
    OFFSET = auto()  # where this direction begins in it
    H_BEFORE = auto()  # numbers of a row of states that stand before its own
    C_BEFORE = auto()
    H_WIDTH = auto()
    C_WIDTH = auto()  # 0: no c
    OWN = auto()  # 1: h is kept a second time, in the order of the units
    FINITE = auto()  # 1: all recurrent weights are, so that their product with zeros is zero
    PLACES = auto()  # where each unit stands in that order (int64), 0: in its own place
