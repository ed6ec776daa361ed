"""Style control: features by hand, the published optimiser beside the optimum, and its slicing as it should be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pluralign.errors import SettingsError
from pluralign.judging.arena_hard_style import (
    Style,
    design,
    fit_as_published,
    markdown_counts,
    style_controlled,
    style_features,
)
from pluralign.judging.logistic import fit_logistic


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def battles(seed=0, n=400, models=("m", "n", "o"), strength=(0.5, 0.0, -0.5), longer=(0.6, 0.0, -0.6), beta=1.2):
    """Entries in which length decides by `beta` a unit of (a - b) / (a + b), and models differ in length."""
    rng = np.random.default_rng(seed)
    owners, own, theirs = [], [], []
    for model, extra in zip(models, longer, strict=True):
        for _ in range(n):
            base = rng.gamma(4, 100) + 20
            owners.append(model)
            theirs.append(Style(base, *rng.poisson(3, 3).tolist()))
            own.append(Style(base * math.exp(extra + rng.normal(0, 0.4)), *rng.poisson(3, 3).tolist()))
    features = style_features(own, theirs)
    logits = np.array([strength[models.index(o)] for o in owners]) + beta * features[:, 0]
    return owners, (rng.random(len(owners)) < sigmoid(logits)).astype(float), features


def test_features_by_hand():
    # length (300 - 100) / 400; headers 6 / 301 and 2 / 101: densities .0199336 and .0198020
    a, b = Style(300, 6, 0, 0), Style(100, 2, 0, 0)
    dense = [6 / 301, 2 / 101]
    found = style_features([a], [b])[0]
    assert found.tolist() == pytest.approx([0.5, (dense[0] - dense[1]) / (sum(dense) + 1), 0, 0])
    assert style_features([a], [b], "v0.1")[0].tolist() == pytest.approx([200 / 401, 4 / 9, 0, 0])


def test_two_empty_answers_have_equal_length():
    assert style_features([Style(0)], [Style(0)]).tolist() == [[0, 0, 0, 0]]


def test_markup_outside_of_code_blocks_is_counted():
    text = (
        "# One\n## Two\n- item\n* item\n 1. item\nsome **bold** and __bold__\n```\n# not a header\n- no item\n```\n#no"
    )
    assert markdown_counts(text, 20) == Style(20, headers=2, lists=3, bold=2)


def test_controls_take_their_own_columns():
    """Length alone is the length, markup alone is markup; the published code cuts [models | features] instead."""
    features = np.random.default_rng(0).normal(size=(50, 4))
    whole, names, _ = design(features, ("length", "markdown"))
    assert names == ("length", "headers", "lists", "bold")
    length, only, _ = design(features, ("length",))
    markup, rest, _ = design(features, ("markdown",))
    assert (only, rest) == (("length",), ("headers", "lists", "bold"))
    assert length == pytest.approx(whole[:, :1])
    assert markup == pytest.approx(whole[:, 1:])
    assert whole.mean(0) == pytest.approx(np.zeros(4), abs=1e-12)
    assert whole.std(0, ddof=1) == pytest.approx(np.ones(4))


@pytest.mark.parametrize("controls", [("length",), ("markdown",), ("length", "markdown")])
def test_every_model_keeps_its_score_whatever_is_controlled(controls):
    owners, scores, features = battles(n=80)
    found = style_controlled(owners, scores, features, baseline="base", controls=controls, resamples=3)
    assert set(found.published.scores) == set(found.converged.scores) == {"m", "n", "o", "base"}
    for fit in (found.published, found.converged):
        assert fit.scores["base"].value == 0.5
        assert len(fit.effects) == {"length": 1, "markdown": 3}.get("".join(controls), 4)


def test_a_feature_that_never_changes_is_dropped_and_said():
    owners, scores, features = battles(n=80)
    features[:, 2] = 0.25
    found = style_controlled(owners, scores, features, baseline="base", resamples=3).converged
    assert found.dropped == ("lists",)
    assert all(np.isfinite(e.value) for e in found.scores.values())


def test_length_is_told_from_strength():
    """Models at ln odds .5, 0, -.5 of which the strong ones are longer: plain shares are further apart than that."""
    owners, scores, features = battles()
    options = {"baseline": "base", "controls": ("length",), "centre": False, "resamples": 25}
    found = style_controlled(owners, scores, features, **options).converged
    for model, strength in (("m", 0.5), ("n", 0.0), ("o", -0.5)):
        plain = scores[[o == model for o in owners]].mean()
        assert found.scores[model].low <= sigmoid(strength) <= found.scores[model].high
        assert abs(plain - 0.5) > abs(sigmoid(strength) - 0.5) or model == "n"
    assert found.effects["length"].value / features[:, 0].std(ddof=1) == pytest.approx(1.2, abs=0.3)


def test_a_judge_of_length_alone_moves_to_fifty_only_without_centring():
    """One model, always longer. Centring takes its mean difference for no difference, so nothing is controlled for."""
    owners, scores, features = battles(models=("m",), strength=(0.0,), longer=(0.8,), beta=3.0, n=1200)
    assert scores.mean() > 0.7
    options = {"baseline": "base", "controls": ("length",), "resamples": 2}
    centred = style_controlled(owners, scores, features, **options).converged.scores["m"].value
    plain = style_controlled(owners, scores, features, centre=False, **options).converged.scores["m"].value
    assert centred > 0.7
    assert plain == pytest.approx(0.5, abs=0.04)


def test_converged_fit_has_no_gradient_and_the_published_one_stops_near_it():
    owners, scores, features = battles(n=200)
    z, _, _ = design(features, ("length", "markdown"))
    x = np.hstack([np.array([[o == m for m in "mno"] for o in owners], dtype=float), z])
    theta = fit_logistic(x, scores).coefficients
    assert x.T @ (sigmoid(x @ theta) - scores) == pytest.approx(np.zeros(7), abs=1e-6)
    stopped = fit_as_published(x, scores)
    loss = [float(np.sum(np.logaddexp(0, x @ t) - scores * (x @ t))) for t in (theta, stopped)]
    assert loss[0] <= loss[1] + 1e-6
    found = style_controlled(owners, scores, features, baseline="base", resamples=5)
    for model in "mno":
        gap = found.published.scores[model].value - found.converged.scores[model].value
        assert abs(gap) < 0.04


def test_v01_is_scikit_learns_penalised_fit():
    from sklearn.linear_model import LogisticRegression

    owners, scores, _ = battles(n=60)
    rng = np.random.default_rng(1)
    features = rng.normal(size=(len(owners), 4))
    found = style_controlled(owners, scores, features, baseline="base", version="v0.1", resamples=2).published
    names = ["base", "m", "n", "o"]
    hot = np.array([[(o == m) - (m == "base") for m in names] for o in owners]) * math.log(10)
    z = (features - features.mean(0)) / features.std(0)
    x = np.tile(np.hstack([hot, z]), (2, 1))  # battles counted twice
    theirs = LogisticRegression(fit_intercept=False, tol=1e-8, max_iter=1000).fit(x, np.tile(scores, 2)).coef_[0]
    for k, name in enumerate(names):
        expected = 1 / (1 + 10 ** -(theirs[k] - theirs[0]))
        assert found.scores[name].value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": ("colour",)}, "length and markdown"),
        ({"controls": ()}, "not nothing"),
        ({"baseline": "m"}, "does not play against itself"),
        ({"scores": np.ones(3)}, "each entry has a model"),
    ],
)
def test_impossible_requests(change, message):
    owners, scores, features = battles(n=10)
    given = {"models": owners, "scores": scores, "features": features, "baseline": "base", "resamples": 2} | change
    with pytest.raises(SettingsError, match=message):
        style_controlled(**given)
