"""Bugs of the sparsifiers: masks, penalties, proximal steps, budgets, resumed runs."""

from .bug import Bug

EXACT = "test_learn_prune.py::test_exactly_the_share_is_zero_after_fifty_further_steps"
LBFGS = "test_learn_lasso.py::test_lbfgs_minimises_loss_and_penalty_together"
METRIC = "test_learn_metric.py::test_the_metric_is_the_optimizers_own_displacement"
MINIMUM = "test_learn_lasso.py::test_the_group_step_is_the_minimum_in_the_metric"
MOMENTUM = METRIC
PENALTY = "test_learn_lasso.py::test_the_penalty_is_the_plain_loop_over_the_published_slices"
RESUMED = "test_learn_sparsifier.py::test_killed_and_resumed_is_equal_to_the_bit"
SCALER = "test_learn_sparsifier.py::test_grad_scaler_with_a_fused_optimizer"
SCHEDULES = "test_learn_prune.py::test_schedules_reach_the_sparsity_and_nothing_comes_back"
SCOPES = "test_learn_prune.py::test_scopes_count_exactly"
TIES = "test_learn_prune.py::test_ties_go_by_index"
FOLDS = "test_learn_fold_path.py::test_what_was_folded_away_stays_at_zero_under_every_optimizer"
SECOND = "test_learn_fold_path.py::test_a_second_fold_is_that_of_the_compacted_net"
UNITS = "test_learn_shrink.py"

BUGS = (
    Bug(
        "masks not applied again after a step",
        "learn: Sparsifier._move",
        "        self._advance()\n        self._enforce()\n",
        "        self._advance()\n",
        (EXACT,),
    ),
    Bug(
        "momentum of masked weights lives on",
        "learn: Sparsifier._enforce",
        "                    mask_state(optimizer, parameter, mask)\n",
        "                    pass\n",
        (EXACT,),
    ),
    Bug(
        "gradients of masked weights live on",
        "learn: Sparsifier._prepare",
        "                apply(gradient, by)\n",
        "                pass\n",
        (EXACT,),
    ),
    Bug(
        "a penalty in the loss added once more",
        "learn: Sparsifier._prepare",
        "None if self._user_added or not first else self._add_gradient(scale)",
        "self._add_gradient(scale)",
        ("test_learn_sparsifier.py::test_a_penalty_in_the_loss_is_not_added_twice",),
    ),
    Bug(
        "steps counted from the start after a resume",
        "learn: Sparsifier.load_state_dict",
        'self.steps_done, self._finished = int(state["steps_done"]), state["finished"]',
        'self._finished = state["finished"]',
        (RESUMED,),
    ),
    Bug(
        "a score's memory lost in a resume",
        "learn: Score.load",
        "self.memory = {name: value.to(devices.get(name), copy=True) for",
        "self.memory = {name: torch.zeros_like(value) for",
        (RESUMED,),
    ),
    Bug(
        "scale of the gradients ignored",
        "learn: gradient_scale",
        "return sign if scale is None else sign * scale",
        "return sign",
        (SCALER,),
    ),
    Bug(
        "steps that a fused optimizer skipped are counted",
        "learn: overflowed",
        "return found is not None and bool(found)",
        "return False",
        (SCALER,),
    ),
    Bug(
        "one equal too few goes",
        "learn: lowest",
        "equal.cumsum(0) <= missing",
        "equal.cumsum(0) < missing",
        (TIES,),
    ),
    Bug(
        "all equals of the last one go",
        "learn: lowest",
        "return below | (equal & (equal.cumsum(0) <= missing))",
        "return below | equal",
        (TIES,),
    ),
    Bug(
        "counts rounded down",
        "learn: Prune._prune",
        "round(share * (scope.stop - scope.start))",
        "int(share * (scope.stop - scope.start))",
        (SCOPES,),
    ),
    Bug(
        "what has gone may come back",
        "learn: Prune._prune",
        "scores = scores.masked_fill(gone, -torch.inf)",
        "scores = scores.masked_fill(gone, torch.inf)",
        (SCHEDULES,),
    ),
    Bug(
        "all units of a layer may go",
        "learn: protected",
        "        stay[units[best][0]] = True\n",
        "        stay[units[best][0]] = False\n",
        ("test_learn_prune.py::test_one_unit_of_each_layer_and_direction_stays",),
    ),
    Bug(
        "a quadratic ramp",
        "learn: Gradual.sparsity",
        "* left**3",
        "* left**2",
        ("test_learn_prune.py::test_the_cubic_ramp_of_zhu_and_gupta",),
    ),
    Bug(
        "epsilon outside the root",
        "learn: Penalty.value",
        "return (self.squares(parameters) + EPSILON).sqrt().sum()",
        "return (self.squares(parameters).sqrt() + EPSILON).sum()",
        (PENALTY,),
    ),
    Bug(
        "another epsilon than the authors'",
        "learn: EPSILON",
        "EPSILON = 1e-8 ",
        "EPSILON = 1e-7 ",
        (PENALTY,),
    ),
    Bug(
        "weights of a unit on itself counted once",
        "learn: Penalty.__init__",
        'if self_weights == "once":',
        'if self_weights in ("once", "twice"):',
        (PENALTY,),
    ),
    Bug(
        "strength left out of the gradient's scale",
        "learn: GroupLasso._add_gradient",
        "p.add_gradient(self._parameters, scale * s)",
        "p.add_gradient(self._parameters, scale)",
        ("test_learn_lasso.py::test_the_gradient_that_is_added_is_the_penaltys",),
    ),
    Bug(
        "bias correction of the first moment in the metric",
        "learn: _adam",
        'correction = 1 - group["betas"][1] **',
        'correction = 1 - group["betas"][0] **',
        (METRIC,),
    ),
    Bug(
        "learning rate left out of Adam's epsilon",
        "learn: _adam",
        '1 / (correction**0.5 * rate), group["eps"] / rate)',
        '1 / (correction**0.5 * rate), group["eps"])',
        (METRIC,),
    ),
    Bug(
        "momentum left out of the metric",
        "learn: _rate",
        " / (1 - momentum)\n",
        "\n",
        (MOMENTUM,),
    ),
    Bug(
        "groups go by their norm instead of their pull",
        "learn: _squares",
        "part.sums(pulled)), total",
        "total), total",
        (MINIMUM,),
    ),
    Bug(
        "radius of a group not refined",
        "learn: shrink_groups",
        "    if bool(near.any()):\n",
        "    if bool(near.all()):\n",
        (MINIMUM,),
    ),
    Bug(
        "one unit too many goes for the budget",
        "learn: Budget._how_many",
        "(level.left(order, present) > budget).sum()",
        "(level.left(order, present) >= budget).sum()",
        (UNITS,),
    ),
    Bug(
        "a budget that is not met",
        "learn: Budget._how_many",
        "int((level.left(order, present) > budget).sum())",
        "int((level.left(order, present) > budget).sum()) - 1",
        (UNITS,),
    ),
    Bug(
        "what was folded away before the last fold is not held",
        "learn: Folds.advance",
        "        return True\n",
        "        return self.frozen\n",
        (FOLDS,),
    ),
    Bug(
        "a fold does not know of the one before",
        "learn: Folds._fold",
        "before = None if self.gone is None else self.gone[0]",
        "before = None",
        (SECOND,),
    ),
    Bug(
        "what is out already has a part in the ridge",
        "learn: Folding._reader",
        "[(group >= 0) & ~out]",
        "[group >= 0]",
        (SECOND,),
    ),
    Bug(
        "the columns of a unit left out of the count",
        "learn: Slices.left",
        "total += torch.stack(sides).prod(0)",
        "total += sides[0] * weights.shape[1]",
        (UNITS,),
    ),
    Bug(
        "units chosen by their rows instead of their readers",
        "learn: Slices.__init__",
        'self.of_roles("outgoing" if groups.level == "unit" else "incoming")',
        'self.of_roles("incoming")',
        ("test_learn_prune.py::test_units_go_by_what_reads_them",),
    ),
    Bug(
        "the other sign of GraSP",
        "learn: GraSP._score",
        "(w * p).detach()",
        "-(w * p).detach()",
        ("test_learn_at_start.py::test_grasp_is_the_change_of_the_squared_norm_of_the_gradient",),
    ),
    Bug(
        "paths through one gate alone",
        "learn: _summed",
        ".sum(0)",
        "[0]",
        ("test_learn_at_start.py::test_synflow_is_the_sum_over_all_paths",),
    ),
    Bug(
        "the last word of a row leaves out its columns",
        "learn: TilePart.rows",
        "(column <= end)",
        "(column < end)",
        ("test_learn_groups.py::test_blocks_partition_each_gate",),
    ),
)
