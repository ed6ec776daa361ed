"""Distances of opinion distributions: by hand, as a metric, and on what people answered."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import RecordError
from pluralign.judging.distributions import jensen_shannon, jensen_shannon_distance, opinion_report

weights = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda w: sum(w) > 0.01)


def test_by_hand():
    assert jensen_shannon([1, 0], [0, 1]) == pytest.approx(math.log(2))
    # (1, 0) and (1/2, 1/2): middle (3/4, 1/4): its entropy .562335 minus half of ln 2
    assert jensen_shannon([1, 0], [0.5, 0.5]) == pytest.approx(0.5623351 - math.log(2) / 2, abs=1e-7)
    assert jensen_shannon_distance([1, 0], [0, 1]) == pytest.approx(0.832555, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(weights, weights, weights)
def test_the_distance_is_a_metric(p, q, r):
    d = jensen_shannon_distance
    assert d(p, p) == pytest.approx(0, abs=1e-7)
    assert d(p, q) == pytest.approx(d(q, p))
    assert d(p, r) <= d(p, q) + d(q, r) + 1e-7
    assert 0 <= d(p, q) <= math.sqrt(math.log(2)) + 1e-9


def test_scipy_agrees():
    from scipy.spatial.distance import jensenshannon

    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    assert jensen_shannon_distance(p, q) == pytest.approx(jensenshannon(p, q))


def test_report_with_mass_off_the_options():
    # the first row puts .6 on the options, split as people do; the second none at all; the third gave nothing
    people = [[0.5, 0.5], [0.2, 0.8], [1, 0], [0, 1]]
    found = opinion_report([[0.3, 0.3], [0, 0], None, [1, 0]], people, ["x", "x", "y", "y"])
    assert found.divergence.value == pytest.approx(math.log(2) / 2)
    assert (found.divergence.n, found.divergence.missing) == (2, 2)
    assert found.off_option.value == pytest.approx((0.4 + 1 + 0) / 3)
    assert (found.groups["x"].value, found.groups["y"].value) == (0, pytest.approx(math.log(2)))
    assert found.worst is None  # no group has two scored rows
    assert found.uniform.value == pytest.approx(np.mean([jensen_shannon([1, 1], q) for q in people]))


def test_the_worst_group_is_the_farthest():
    rng = np.random.default_rng(1)
    near = [rng.dirichlet([50, 50]) for _ in range(20)]
    far = [rng.dirichlet([50, 5]) for _ in range(20)]
    found = opinion_report([[0.5, 0.5]] * 40, near + far, ["near"] * 20 + ["far"] * 20)
    assert found.worst_name == "far"
    assert found.worst.value == pytest.approx(found.groups["far"].value)
    assert found.worst.low <= found.groups["far"].value <= found.worst.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jensen_shannon([1, 0], [1, 0, 0]), "different options: 2 and 3"),
        (lambda: jensen_shannon([1, -1], [1, 0]), "not negative"),
        (lambda: opinion_report([[0.9, 0.9]], [[1, 0]], ["x"]), "at most one"),
        (lambda: opinion_report([], [[1, 0]], ["x"]), "each row needs"),
    ],
)
def test_what_is_no_distribution(call, message):
    with pytest.raises(RecordError, match=message):
        call()


def test_countries_answers(shared):
    """A model that answers as all countries do on average is nearer to them than one that knows nothing."""
    path = shared / "opinion_distributions" / "globalopinionqa_eval.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    by_question: dict[str, list] = {}
    for row in rows:
        by_question.setdefault(row["question"], []).append(row)
    asked = [r for group in by_question.values() if len(group) > 1 for r in group if len(r["distribution"]) == len(group[0]["distribution"])]  # fmt: skip  # noqa: E501
    asked = [r for r in asked if sum(r["distribution"]) > 0]
    mean = {q: np.mean([r["distribution"] for r in g if len(r["distribution"]) == len(g[0]["distribution"])], axis=0)
            for q, g in by_question.items()}  # fmt: skip
    model = [mean[r["question"]] / max(1.0, mean[r["question"]].sum()) for r in asked]
    found = opinion_report(model, [r["distribution"] for r in asked], [r["country"] for r in asked],
                           questions=[r["question"] for r in asked])  # fmt: skip
    assert found.divergence.n > 3000
    assert found.divergence.high < found.uniform.low
    assert found.worst.value >= found.divergence.value
