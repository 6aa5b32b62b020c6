"""Which properties go with quality: correlations with intervals, sizes controlled, regressions, held-out families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Correlation:
    """Pearson's r and its 95% interval, by Fisher's transformation."""

    r: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def pearson(x: Values, y: Values, controlled: int = 0) -> Correlation:
    """Pearson's r of x and y (at least four values); 0 where either is constant. `controlled`: see `partial`."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    r = float(a @ b) / scale if scale > 1e-12 else 0.0
    r = min(1.0, max(-1.0, r))
    z, half = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)), 1.959964 / np.sqrt(max(1, len(a) - 3 - controlled))
    return Correlation(r, float(np.tanh(z - half)), float(np.tanh(z + half)))


def partial(x: Values, y: Values, controls: Sequence[Values]) -> Correlation:
    """Correlation of what is left of x and y once the `controls` have been fitted to both by least squares."""
    base = np.column_stack([np.ones(len(x)), *(np.asarray(c, dtype=float) for c in controls)])

    def rest(values: Values) -> np.ndarray:
        v = np.asarray(values, dtype=float)
        left = v - base @ np.linalg.lstsq(base, v, rcond=None)[0]
        # What is left of a property that the controls determine is rounding, which correlates with nothing.
        return left if left @ left > 1e-12 * max(1e-300, float((v - v.mean()) @ (v - v.mean()))) else 0 * left

    return pearson(list(rest(x)), list(rest(y)), len(controls))


def models(seed: int = 0) -> dict[str, Any]:
    """The regressions: ridge on scaled properties, random forest, AdaBoost."""
    from sklearn.ensemble import AdaBoostRegressor, RandomForestRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 25))),
        "forest": RandomForestRegressor(200, min_samples_leaf=2, random_state=seed),
        "adaboost": AdaBoostRegressor(n_estimators=100, random_state=seed),
    }


def cross_validated(table: np.ndarray, y: np.ndarray, model: Any, folds: int = 10, seed: int = 0) -> float:
    """R² of predictions for graphs that the model did not see, over `folds` folds put together."""
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict

    return float(r2_score(y, cross_val_predict(model, table, y, cv=KFold(folds, shuffle=True, random_state=seed))))


def held_out(table: np.ndarray, y: np.ndarray, family: np.ndarray, model: Any) -> dict[int, float]:
    """R² on each family of a model that was fitted to all the others."""
    from sklearn.base import clone
    from sklearn.metrics import r2_score

    found = {}
    for one in np.unique(family):
        fitted: Any = clone(model)
        fitted.fit(table[family != one], y[family != one])
        found[int(one)] = float(r2_score(y[family == one], fitted.predict(table[family == one])))
    return found


def importance(table: np.ndarray, y: np.ndarray, model: Any, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Permutation importance of each column: mean loss of R² on held-out folds when the column is shuffled."""
    from sklearn.base import clone
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    found = []
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(table):
        fitted: Any = clone(model)
        fitted.fit(table[train], y[train])
        result: Any = permutation_importance(fitted, table[test], y[test], n_repeats=5, random_state=seed)
        found.append(result.importances_mean)
    return np.mean(found, axis=0)


def paired(base: Values, twin: Values) -> tuple[float, float]:
    """Mean of twin - base, and half of its 95% interval (normal approximation)."""
    difference = np.asarray(twin, dtype=float) - np.asarray(base, dtype=float)
    if len(difference) < 2:
        return float(difference.mean()), float("inf")
    return float(difference.mean()), float(1.96 * difference.std(ddof=1) / np.sqrt(len(difference)))
