"""Bugs of the numeric checks, which run a model again and compare."""

from .bug import Bug

BRANCHES = "test_bad_input.py::test_a_module_that_no_example_reached_is_named"
CHECK = "contracts/test_check.py"

BUGS = (
    Bug(
        "only the first example is run",
        "structure: _record",
        "for number, call in enumerate(calls, start=1):",
        "for number, call in enumerate(calls[:1], start=1):",
        (BRANCHES,),
    ),
    Bug(
        "the numeric check leaves half of the units out",
        "structure: find_unknown_readers",
        "for half in (chosen, rest) if len(half)",
        "for half in (chosen,) if len(half)",
        (CHECK,),
    ),
    Bug(
        "NaN taken for equal",
        "structure: difference",
        "        if bool(values.isnan().any()):\n",
        "        a, b = a.nan_to_num(), b.nan_to_num()\n        if False:\n",
        ("contracts/test_finite.py::test_what_differs",),
    ),
    Bug(
        "runs of a check go on from one another's states",
        "structure: outcomes",
        "        twin = copied(model)\n",
        "        twin = model\n",
        ("contracts/test_kept_on_self.py", "contracts/test_kept_in_functions.py"),
    ),
    Bug(
        "a kept state is not looked at in a second call",
        "structure: results",
        "    if _changed(before, _held(model)):\n",
        "    if False:\n",
        ("contracts/test_kept_on_self.py::test_readers_of_a_kept_state_are_found_at_the_second_call",),
    ),
    Bug(
        "weights of the numeric check not put back after an error",
        "structure: _Checker._holds",
        "                parameters[name].data.copy_(value)\n",
        "                pass\n",
        ("contracts/test_finite.py::test_a_forward_that_raises_in_between_spoils_no_later_comparison",),
    ),
)
