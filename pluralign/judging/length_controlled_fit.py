"""The fit under AlpacaEval 2's length control: scikit-learn's cross-validated L1 logistic regression on soft labels.

A row with share p stands twice, as a win with weight p and as a loss with weight 1 - p. Five folds keep both together
and are scored by the weighted log-loss of the share itself. Newer versions of scikit-learn name the L1 penalty
differently; both names are served. Shapes: N rows, P features.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SettingsError

__all__ = ["LAMBDA", "SEED", "fit_at", "fit_by_cross_validation"]

Floats = NDArray[np.float64]
LAMBDA, SEED, FOLDS, GRID = 0.2, 123, 5, 10
EPSILON = 1e-15  # where the published log-loss is cut


def fit_by_cross_validation(x: Floats, wins: Floats, weights: Floats | None) -> tuple[Floats, float]:
    """(P,) coefficients and the C that cross-validation chose of ten between 1e-4 and 1e4.

    `weights` None: rows count alike, as in the published variants without gamed rows.
    Raises SettingsError for fewer rows than folds.
    """
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    if len(x) < FOLDS:
        raise SettingsError(f"five-fold cross-validation needs at least five verdicts, not {len(x)}.")
    twice, labels, shares, own = _doubled(x, wins, weights)
    with config_context(enable_metadata_routing=True):
        scorer = make_scorer(_log_loss, response_method="predict_proba", greater_is_better=False)
        scorer = scorer.set_score_request(true_sample_weight=True, true_prob=True)
        model = LogisticRegressionCV(
            Cs=GRID, cv=GroupKFold(n_splits=FOLDS), scoring=scorer, dual=False, **_l1(LogisticRegressionCV)
        ).set_fit_request(sample_weight=True)
        routed: dict[str, Any] = {"groups": np.tile(np.arange(len(x)), 2), "true_prob": shares}
        routed["true_sample_weight"] = own
        sample_weight = shares if own is None else shares * own
        model.fit(twice, labels, sample_weight=sample_weight, **routed)
    return np.asarray(model.coef_[0], dtype=np.float64), float(np.ravel(model.C_)[0])


def fit_at(x: Floats, wins: Floats, weights: Floats, c: float, start: Floats | None = None) -> Floats:
    """(P,) the minimiser of |theta|_1 + c sum_i w_i BCE(wins_i, sigma(x_i . theta)), as the solver above finds it.

    Newton steps that know the L1 norm: where no coefficient changes its sign they are plain ones, else coordinate
    descent solves the quadratic model. With few columns that is much quicker, which resampling asks for. It stops where
    no coefficient moves by 1e-8.
    """
    theta = np.zeros(x.shape[1]) if start is None else start.copy()
    loss = _objective(x, wins, weights, c, theta)
    for _ in range(100):
        p = np.exp(-np.logaddexp(0.0, -(x @ theta)))
        gradient = c * (x.T @ (weights * (p - wins)))
        curvature = c * ((x * (weights * p * (1 - p))[:, None]).T @ x) + 1e-10 * np.eye(len(theta))
        step = -np.linalg.solve(curvature, gradient + np.sign(theta))
        if (theta * (theta + step) <= 0).any():
            step = _lasso_step(theta, gradient, curvature)
        size = 1.0
        while (new := _objective(x, wins, weights, c, theta + size * step)) > loss and size > 1e-8:
            size /= 2
        theta, loss = theta + size * step, min(loss, new)
        if float(np.abs(size * step).max()) < 1e-8:
            break
    return theta


def _objective(x: Floats, wins: Floats, weights: Floats, c: float, theta: Floats) -> float:
    z = x @ theta
    return float(np.abs(theta).sum()) + c * float(weights @ (np.logaddexp(0.0, z) - wins * z))


def _lasso_step(theta: Floats, gradient: Floats, curvature: Floats) -> Floats:
    """The d that minimises g . d + d H d / 2 + |theta + d|_1."""
    d = np.zeros(len(theta))
    for _ in range(200):
        before = d.copy()
        for k in range(len(d)):
            h = curvature[k, k]
            slope = gradient[k] + curvature[k] @ d - h * d[k]
            point = theta[k] - slope / h
            d[k] = np.sign(point) * max(0.0, abs(point) - 1 / h) - theta[k]
        if float(np.abs(d - before).max()) < 1e-10:
            break
    return d


def _doubled(x: Floats, wins: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats, Floats | None]:
    labels = np.repeat([1.0, 0.0], len(x))
    own = None if weights is None else np.tile(weights, 2)
    return np.tile(x, (2, 1)), labels, np.concatenate([wins, 1 - wins]), own


def _log_loss(y_true: Floats, y_pred: Floats, true_prob: Floats, true_sample_weight: Floats | None = None) -> float:
    """The mean over rows of the weighted log-loss against the share of wins, which both copies of a row carry."""
    share = np.where(y_true == 1, true_prob, 1 - true_prob)
    p = np.clip(y_pred, EPSILON, 1 - EPSILON)
    gains = share * np.log(p) + (1 - share) * np.log(1 - p)
    return -float(np.mean(gains if true_sample_weight is None else gains * true_sample_weight))


def _l1(estimator: type) -> dict[str, Any]:
    """The settings of the published fit in the words of the installed scikit-learn (`penalty` is deprecated in 1.8)."""
    known = inspect.signature(estimator).parameters
    out: dict[str, Any] = {"solver": "liblinear", "fit_intercept": False, "random_state": SEED}
    if known["penalty"].default == "deprecated":
        out["l1_ratios" if "l1_ratios" in known else "l1_ratio"] = (1.0,) if "l1_ratios" in known else 1.0
    else:
        out["penalty"] = "l1"
    if "use_legacy_attributes" in known:
        out["use_legacy_attributes"] = False
    return out
