"""Agreement between judges: values worked by hand or published, reductions, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import PluralignError
from pluralign.judging.agreement import agreement, agreement_matrix, cohen_kappa, krippendorff_alpha

_ = None
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), the example with gaps: 4 observers of 12 units
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


def quick(*args, **options):
    return cohen_kappa(*args, resamples=100, **options)


def test_share_alike():
    found = agreement(["a", "b", "a", None, "b"], ["a", "b", "b", "a", float("nan")])
    assert (found.value, found.n, found.missing) == (pytest.approx(2 / 3), 3, 2)
    with pytest.raises(PluralignError, match="found 1 and 2"):
        agreement(["a"], ["a", "b"])


def test_kappa_by_hand():
    # 50 items: yes/yes 20, yes/no 5, no/yes 10, no/no 15. Observed .7; expected .5 * .6 + .5 * .4 = .5; kappa .4
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = quick(a, b)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high


def test_weighted_kappa_by_hand():
    # Labels 1 2 3. Pairs (1,1) (2,2) (3,3) (1,3): marginals a: 1/2 1/4 1/4, b: 1/4 1/4 1/2.
    # Linear: observed 2/4 = .5; expected sum p_i q_j |i-j| = 1/2 (1/4 + 2/2) + 1/4 (1/4 + 1/2) + 1/4 (2/4 + 1/4) = 1
    # so kappa = .5. Quadratic: observed 4/4 = 1; expected 1/2 (1/4 + 4/2) + 1/4 (3/4) + 1/4 (4/4 + 1/4) = 1.625
    a, b = [1, 2, 3, 1], [1, 2, 3, 3]
    assert quick(a, b, weights="linear").value == pytest.approx(0.5)
    assert quick(a, b, weights="quadratic").value == pytest.approx(1 - 1 / 1.625)


def test_two_labels_have_one_kappa():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2, 40).tolist(), rng.integers(0, 2, 40).tolist()
    plain = quick(a, b).value
    assert quick(a, b, weights="linear").value == pytest.approx(plain)
    assert quick(a, b, weights="quadratic").value == pytest.approx(plain)


def test_kappa_agrees_with_scikit_learn():
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(3)
    a = rng.integers(0, 4, 80)
    b = np.where(rng.random(80) < 0.6, a, rng.integers(0, 4, 80))
    for weights in (None, "linear", "quadratic"):
        found = quick(a.tolist(), b.tolist(), weights=weights)
        assert found.value == pytest.approx(cohen_kappa_score(a, b, weights=weights))


def test_kappa_where_there_is_nothing_to_agree_on():
    found = quick(["a", "a"], ["a", "a"])
    assert math.isnan(found.value)
    assert math.isnan(quick([None], ["a"]).value)
    with pytest.raises(PluralignError, match="not among the categories"):
        quick(["a"], ["c"], categories=["a", "b"])


@pytest.mark.parametrize(("scale", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(scale, value):
    found = krippendorff_alpha(PUBLISHED, scale, resamples=100)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert (found.n, found.missing) == (11, 1)  # the last unit has one rating


def test_alpha_by_hand():
    # Two judges of 4 items: 1/1 1/1 2/2 1/2. Coincidences: o11 = 4, o22 = 2, o12 = o21 = 1; n1 = 5, n2 = 3, n = 8.
    # alpha = 1 - (n - 1) o12 / (n1 n2) = 1 - 7 / 15
    assert krippendorff_alpha([[1, 1, 2, 1], [1, 1, 2, 2]], resamples=100).value == pytest.approx(1 - 7 / 15)


def test_alpha_is_kappas_neighbour_without_gaps():
    rng = np.random.default_rng(5)
    a = rng.integers(0, 3, 300)
    b = np.where(rng.random(300) < 0.7, a, rng.integers(0, 3, 300))
    kappa, alpha = (
        quick(a.tolist(), b.tolist()).value,
        krippendorff_alpha([a.tolist(), b.tolist()], resamples=100).value,
    )
    assert alpha == pytest.approx(kappa, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([1, 2, 3, None])] * 3), min_size=4, max_size=12), st.randoms())
def test_alpha_knows_neither_the_order_of_judges_nor_of_items(rows, random):
    shuffled = [list(row) for row in rows]
    random.shuffle(shuffled)
    for row in shuffled:
        random.shuffle(row)
    one, other = (krippendorff_alpha([list(c) for c in zip(*t, strict=True)], "ordinal", resamples=100)
                  for t in (rows, shuffled))  # fmt: skip
    assert one.value == pytest.approx(other.value, nan_ok=True)
    assert (one.n, one.missing) == (other.n, other.missing)


def test_interval_of_kappa_covers_its_truth():
    # Both judges see the truth with chance .8 and guess among two labels otherwise: kappa = .64
    rng = np.random.default_rng(8)

    def judge(truth):
        return np.where(rng.random(len(truth)) < 0.8, truth, rng.integers(0, 2, len(truth))).tolist()

    hits = 0
    for run in range(100):
        truth = rng.integers(0, 2, 80)
        found = cohen_kappa(judge(truth), judge(truth), resamples=100, seed=run)
        hits += found.low <= 0.64 <= found.high
    assert 0.88 <= hits / 100 <= 0.99  # 100 runs know .95 to +- .04


def test_matrix_names_each_pair_once():
    judges = {"x": [1, 2, 1], "y": [1, 2, 2], "z": [1, 1, 1]}
    found = agreement_matrix(judges, agreement)
    assert list(found) == [("x", "y"), ("x", "z"), ("y", "z")]
    assert found["x", "y"].value == pytest.approx(2 / 3)


def test_real_annotators(shared):
    """PandaLM's three annotators: 879 of 999 unanimous by its README."""
    import gzip
    import json

    path = shared / "pandalm" / "testset_v1.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    judges = [[row[f"annotator{k}"] for row in rows] for k in (1, 2, 3)]
    found = krippendorff_alpha(judges, resamples=100)
    assert 0.8 < found.low < found.value < found.high < 0.95
    unanimous = sum(len(set(labels)) == 1 for labels in zip(*judges, strict=True))
    assert unanimous == 879
