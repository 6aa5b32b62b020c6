"""Bugs of tracing: who reads a unit, what stays, what is dead."""

from .bug import Bug, compacted, kept, readers

ALWAYS_ZERO = "contracts/test_values.py::test_a_unit_without_a_candidate_is_always_zero"
ARRIVES = "contracts/test_values.py::test_zero_has_to_arrive_as_zero"
BRANCHES = "test_bad_input.py::test_a_module_that_no_example_reached_is_named"
CARRIED = "contracts/test_carried.py"
CHECK = "contracts/test_check.py"
CONSTANT = "contracts/test_values.py::test_gates_that_read_nothing_are_constant"
FIRST_STATE = "contracts/test_values.py::test_a_first_state_of_the_callers_is_no_zero"
FIXED_POINT = "contracts/test_values.py::test_what_only_dead_units_read_is_dead_as_well"
TIED_ZEROS = "contracts/test_values.py::test_tied_units_go_when_all_of_them_are_zero"

BUGS = (
    Bug(
        "rows of the gates interleaved",
        "structure/recurrent.py",
        "rows = gate * hidden + np.arange(hidden)",
        "rows = gate + gates * np.arange(hidden)",
        compacted("tagger"),
    ),
    Bug(
        "directions swapped in the output",
        "structure/recurrent.py",
        "torch.from_numpy(np.concatenate(outputs))",
        "torch.from_numpy(np.concatenate(outputs[::-1]))",
        readers("tagger"),
    ),
    Bug(
        "weight_ih of the reverse direction forgotten",
        "structure/recurrent.py",
        "units = _unit(tracer, name, mine, label, projected)",
        "units = _unit(tracer, name, mine, None if direction else label, projected)",
        readers("tagger"),
    ),
    Bug(
        "weight_hh forgotten",
        "structure/recurrent.py",
        "    _read(tracer, hh, out)\n    return",
        "    return",
        readers("last_step"),
    ),
    Bug(
        "weight_hr forgotten",
        "structure/recurrent.py",
        "        _read(tracer, hr, cell)\n",
        "",
        readers("projected_lstm"),
    ),
    Bug(
        "biases of a layer do not belong to its units",
        "structure/recurrent.py",
        "for rows_of in numbers[:-1] if projected else numbers:",
        "for rows_of in numbers[:2]:",
        compacted("last_step"),
    ),
    Bug(
        "every row of a first state tied to layer 0",
        "structure/recurrent.py",
        "label = label[place]",
        "label = label[0]",
        readers("state_to_decoder"),
    ),
    Bug(
        "a zero forget gate taken for a zero value",
        "structure/recurrent.py",
        '"lstm": (4, (2,))',
        '"lstm": (4, (1,))',
        (ALWAYS_ZERO,),
    ),
    Bug(
        "a zero update gate taken for a zero value",
        "structure/recurrent.py",
        '"gru": (3, (2,))',
        '"gru": (3, (1,))',
        (ALWAYS_ZERO,),
    ),
    Bug(
        "zero values without a look at the first state",
        "structure/recurrent.py",
        "        tracer.channels.shifted[ids] = label is None or tracer.channels.shifted[ids]\n",
        "",
        (FIRST_STATE,),
    ),
    Bug(
        "zero values without a look at what shifts them",
        "structure/classes.py",
        "(has_value & ~has_nonzero)[:-1] & ~self.shifted",
        "(has_value & ~has_nonzero)[:-1]",
        (ARRIVES,),
    ),
    Bug(
        "tied units go when one of them is zero",
        "structure/classes.py",
        "always_zero[self.channel_class[member & ~zero]] = False",
        "always_zero = ~always_zero.index_fill(0, self.channel_class[member & zero], False)",
        (TIED_ZEROS,),
    ),
    Bug(
        "sigmoid of zero taken for zero",
        "structure/operations.py",
        'UNARY_ZERO = frozenset(\n    """neg ',
        'UNARY_ZERO = frozenset(\n    """sigmoid neg ',
        (ARRIVES,),
    ),
    Bug(
        "no unit of a layer has to stay",
        "structure/classes.py",
        "                    spared[fresh[0]] = True\n                    found[fresh[0]] = False\n",
        "",
        compacted("tagger", share=1.0),
    ),
    Bug(
        "what a dead unit frees is not looked for",
        "structure/classes.py",
        "            dead = found\n\n    def _too_narrow",
        "            return found\n\n    def _too_narrow",
        (FIXED_POINT,),
    ),
    Bug(
        "a plane read by two channels does not tie them",
        "structure/channels.py",
        "        self.union(planes.channel[index], ids)\n",
        "",
        readers("tied_language_model"),
    ),
    Bug(
        "sums of units do not tie them",
        "structure/tracer.py",
        "        self.channels.union(left, right, self.site())\n        small_a",
        "        small_a",
        readers("residual_stack"),
    ),
    Bug(
        "the weight side of general attention forgotten",
        "structure/build.py",
        "        weight_sides[a[row_a & ~row_b & ~bad]] = True\n        weight_sides[b[row_b & ~bad]] = True\n",
        "",
        readers("general_attention"),
    ),
    Bug(
        "the second input of a bilinear layer forgotten",
        "structure/products.py",
        "for axis, x in ((1, x1), (2, x2)):",
        "for axis, x in ((1, x1),):",
        readers("bilinear_pairs"),
    ),
    Bug(
        "the bias of a linear layer is not cut with its rows",
        "structure/products.py",
        "            tracer.own_along(label, weight, additive=True)\n        return label",
        "            pass\n        return label",
        compacted("bridge_to_decoder"),
    ),
    Bug(
        "statistics of a batch norm are not cut",
        "structure/products.py",
        "for tensor in statistics:",
        "for tensor in statistics[2:]:",
        compacted("batch_norm_features"),
    ),
    Bug(
        "rows and columns of a convolution swapped",
        "structure/products.py",
        'axes = "kn" if transposed else "nk"',
        'axes = "nk" if transposed else "kn"',
        readers("conv_after", "conv_transpose_after"),
    ),
    Bug(
        "negative axes miscounted",
        "structure/reductions.py",
        "return [g % source.dim() for g in given]",
        "return [abs(g) for g in given]",
        kept("softmax_features"),
    ),
    Bug(
        "LayerNorm no reason to stay",
        "structure/reductions.py",
        '        tracer.keep(label, _WHY.get(name, f"{name} over the units mixes them without a weight"))\n',
        "",
        kept("layer_norm_head"),
    ),
    Bug(
        "dot products no reason to stay",
        "structure/build.py",
        "        keep(a[bad], reason)\n",
        "",
        kept("dot_attention"),
    ),
    Bug(
        "operations that are not followed no reason to stay",
        "structure/rules.py",
        '        forget(tracer, args, kwargs, ops.WHOLE.get(plain, "an operation that is not followed"))\n',
        "",
        kept("spectrum_of_units"),
    ),
    Bug(
        "the model's output no reason to stay",
        "structure/trace.py",
        '    tracer.channels.keep(shadow.label, Reason(text, "output", owner))\n',
        "",
        kept("plain_lstm"),
    ),
    Bug(
        "every state that is handed out is carried",
        "structure/trace.py",
        "if carried and shadow.state:",
        "if shadow.state:",
        (CARRIED,),
    ),
    Bug(
        "only the first example is run",
        "structure/trace.py",
        "for number, call in enumerate(calls, start=1):",
        "for number, call in enumerate(calls[:1], start=1):",
        (BRANCHES,),
    ),
    Bug(
        "the numeric check leaves half of the units out",
        "structure/check.py",
        "for half in (chosen, rest) if len(half)",
        "for half in (chosen,) if len(half)",
        (CHECK,),
    ),
    Bug(
        "gates start at multiples of the input size",
        "structure/cells.py",
        "Rows(gate, name, n * hidden_size, kind)",
        "Rows(gate, name, n * first.shape[1], kind)",
        ("test_learn_groups.py::test_gates_are_rows_of_both_matrices",),
    ),
    Bug(
        "blocks cross the gates",
        "structure/blocks.py",
        "edges = [*sorted(starts.get(name, set()) | {0}), rows]",
        "edges = [0, rows]",
        ("test_learn_groups.py::test_blocks_partition_each_gate",),
    ),
    Bug(
        "a GRU's candidate taken for a constant",
        "structure/cells.py",
        'constant=("r", "z"), stacked',
        'constant=("r", "z", "n"), stacked',
        (CONSTANT,),
    ),
    Bug(
        "gates that read the input taken for constant",
        "structure/structure.py",
        "gates.get(rows.gate, torch.ones_like(zero)) & zero",
        "zero",
        (CONSTANT,),
    ),
)
