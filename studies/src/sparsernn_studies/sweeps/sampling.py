"""Where the trials lie: Optuna's samplers, seeded so that a trial's point does not depend on who asked when."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..progress import quiet
from .plan import Sampler
from .space import Axis, Choice, as_text

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


def sampler(name: Sampler, axes: Sequence[Axis], seed: int) -> BaseSampler:
    """Optuna's sampler of that name.

    The grid is shuffled by the seed; a trial's number is its place there. The others draw with a generator that begins
    anew for each trial, from the seed and the trial's number: a random point depends on nothing else, one of TPE on the
    outcomes of the trials before it as well, which are the same in a sweep that was resumed as long as trials run one
    after the other.
    """
    from optuna import samplers

    if name == "grid":
        return samplers.GridSampler({axis.key: axis.values for axis in axes if isinstance(axis, Choice)}, seed=seed)
    kinds = {"random": samplers.RandomSampler, "tpe": samplers.TPESampler}
    return _by_number(lambda drawn: kinds[name](seed=drawn), seed)


def _by_number(make: Callable[[int], BaseSampler], seed: int) -> BaseSampler:
    from optuna.samplers import BaseSampler

    class ByNumber(BaseSampler):
        """Draws for each trial as a new sampler would that is seeded by the trial's number."""

        def _fresh(self, trial: Any, name: str = "") -> BaseSampler:
            digest = hashlib.sha256(f"{seed} {trial.number} {name}".encode()).digest()
            return make(int.from_bytes(digest[:4], "big"))

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
            return self._fresh(trial).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return self._fresh(trial).sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self._fresh(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    return ByNumber()


def ask(trial: Any, axes: Sequence[Axis]) -> dict[str, str]:
    """The point of Optuna's `trial`: setting -> value as text."""
    return {axis.key: as_text(_suggested(trial, axis)) for axis in axes}


def _suggested(trial: Any, axis: Axis) -> str | int | float:
    if isinstance(axis, Choice):
        return trial.suggest_categorical(axis.key, axis.values)
    if axis.whole:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)


def points(name: Sampler, axes: Sequence[Axis], seed: int, trials: int) -> list[dict[str, str]]:
    """The first `trials` points of a sampler that looks at no outcome ("grid", "random")."""
    import optuna

    with quiet("optuna"):
        study = optuna.create_study(sampler=sampler(name, axes, seed))
        return [ask(study.ask(), axes) for _ in range(trials)]
