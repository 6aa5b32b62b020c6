"""Bugs of weights that move to other places, and of weights that go back to earlier ones."""

from .bug import Bug

MOVES = "test_learn_rewire.py::test_a_move_is_what_the_papers_say_group_by_group"
REWOUND = "test_learn_rewind.py::test_with_a_sparsifier_it_is_the_run_of_the_masked_net"

BUGS = (
    Bug(
        "the largest weights go where places move",
        "learn: _moved",
        "lowest(size.masked_fill(gone, torch.inf), number)",
        "lowest(-size.masked_fill(gone, -torch.inf), number)",
        (MOVES,),
    ),
    Bug(
        "weights grow where the gradient is smallest",
        "learn: _moved",
        "lowest(-growth.masked_fill(~empty, -torch.inf), number)",
        "lowest(growth.masked_fill(~empty, torch.inf), number)",
        (MOVES,),
    ),
    Bug(
        "gradients of the places that are empty are not seen",
        "learn: Rewire._watches",
        "self._moves(self.steps_done + 1)",
        "self._moves(self.steps_done)",
        (MOVES,),
    ),
    Bug(
        "what autograd keeps of a stored matrix is the matrix",
        "learn: Owner.enter",
        "                if view is not None:\n",
        "                if False:\n",
        ("test_learn_storage.py::test_no_matrix_is_kept_between_forward_and_backward_or_after",),
    ),
    Bug(
        "a stored optimizer's state stays where weights move",
        "learn: Matrix.become",
        "                    state[key] = form(value)\n",
        "                    pass\n",
        ("test_learn_storage.py::test_a_run_is_that_of_dense_storage_to_the_bit",),
    ),
    Bug(
        "of several gradients that add up only the last one tells where stored weights grow",
        "learn: Matrix.arrived",
        "self._new if anew else self.seen + self._new",
        "self._new",
        ("test_learn_storage.py::test_accumulated_gradients_and_many_uses_of_a_matrix",),
    ),
    Bug(
        "a tensor changed in place inside a module of stored matrices goes unnoticed",
        "learn: _unpack",
        "kept.tensor._version != kept.version",
        "False",
        ("test_learn_storage_use.py::test_what_changes_between_forward_and_backward_is_noticed",),
    ),
    Bug(
        "a resumed sparse storage takes the values of its own start",
        "learn: SparseStorage.load",
        "matrix.dense() if matrix.given is None else matrix.given",
        "matrix.dense()",
        ("test_learn_storage.py::test_killed_and_resumed_is_equal_to_the_bit",),
    ),
    Bug(
        "the first forward pass is dense",
        "learn: Rewire.attach",
        "            self._hold(self._masks())\n",
        "            pass\n",
        ("test_learn_rewire.py::test_exactly_the_share_is_gone_after_every_step_and_places_move",),
    ),
    Bug(
        "a resumed run loses the weights that were zeroed before its state came",
        "learn: Rewire.load_state_dict",
        "                    parameter.copy_(value)\n",
        "                    pass\n",
        ("test_learn_rewire.py::test_a_resumed_run_has_the_weights_of_the_saved_one_in_every_order",),
    ),
    Bug(
        "random growth alike at every step",
        "learn: Rewire._draw",
        "{self._seed} {self.steps_done}",
        "{self._seed}",
        ("test_learn_rewire.py::test_the_share_that_moves_falls_on_a_cosine_and_ends",),
    ),
    Bug(
        "momentum of what is gone comes back with an earlier step",
        "learn: Rewind._mask",
        "                mask_state(optimizer, parameters[name], mask)\n",
        "                pass\n",
        (REWOUND,),
    ),
    Bug(
        "the second return goes to what the first became",
        "learn: Rewind.rewind",
        "copy.deepcopy(self._kept)",
        "self._kept",
        ("test_learn_rewind.py::test_the_run_from_there_on_is_the_same_to_the_bit_as_often_as_wanted",),
    ),
)
