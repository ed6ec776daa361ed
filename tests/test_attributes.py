"""Scales, and scores in words that can be read back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.attributes import WORDINGS, Scale, ScoreForm, fit_scales
from pluralign.errors import SettingsError

HELPSTEER = tuple(Scale(n, 0, 4) for n in ("helpfulness", "correctness", "verbosity"))


def test_the_sentence_of_sga() -> None:
    form = ScoreForm(HELPSTEER)
    shown = form.unit({"verbosity": 1, "helpfulness": 3, "correctness": None})
    assert shown[0] == 0.75
    assert math.isnan(shown[1])
    assert form.text(shown) == " Your response must satisfy the following scores: helpfulness: 0.75, verbosity: 0.25."


def test_the_words_of_the_baselines() -> None:
    given_ = {"helpfulness": 5.0, "verbosity": 3.0}
    assert ScoreForm(HELPSTEER, "cpo", "none").text(given_) == "<helpfulness: 5> <verbosity: 3> "
    assert ScoreForm(HELPSTEER, "steerlm", "none").text(given_) == "helpfulness:5,verbosity:3\n"
    z = ScoreForm(HELPSTEER, "ric", "z").text({"helpfulness": 0.5, "verbosity": -1.2})
    assert z == " <rm1_score> 0.5 <rm3_score> -1.2"


def test_nothing_known_is_nothing_said() -> None:
    assert all(ScoreForm(HELPSTEER, wording).text([math.nan] * 3) == "" for wording in WORDINGS)


names = st.lists(
    st.from_regex(r"\A[a-zA-Z]([a-zA-Z0-9 .()|*+-]{0,8}[a-zA-Z0-9)*+])?\Z"), min_size=1, max_size=4, unique=True
)


@given(names, st.sampled_from(sorted(WORDINGS)), st.data(), st.text(max_size=30))
def test_what_is_written_is_read_back(named: list[str], wording: str, data: st.DataObject, around: str) -> None:
    form = ScoreForm(tuple(Scale(n) for n in named), wording, "none")
    values = st.one_of(st.just(math.nan), st.floats(-9, 9))
    shown = data.draw(st.lists(values, min_size=len(named), max_size=len(named)))
    places = WORDINGS[wording].decimals
    wanted = {n: round(v, places) for n, v in zip(named, shown, strict=True) if v == v}
    assert form.read(form.text(shown)) == pytest.approx(wanted)
    assert form.read(f"{around} {form.text(shown)}") == pytest.approx(wanted) or form.read(around)


@given(names)
def test_the_order_of_a_mapping_does_not_matter(named: list[str]) -> None:
    form = ScoreForm(tuple(Scale(n) for n in named))
    given_ = {n: i / 10 for i, n in enumerate(named)}
    assert form.text(given_) == form.text(dict(reversed(given_.items())))


def test_a_form_comes_back_from_json() -> None:
    form = ScoreForm(HELPSTEER, "cpo", "none")
    assert ScoreForm.from_dict(form.as_dict()) == form


def test_scales_from_data() -> None:
    rows = [{"a": (1, 3), "b": (None, 2.0)}, {"a": (None, None), "b": (4.0, math.nan)}]
    assert fit_scales(rows) == (Scale("a", 1, 3), Scale("b", 2, 4))
    assert fit_scales(rows, ["b", "a"], ranges={"a": (0, 4)}) == (Scale("b", 2, 4), Scale("a", 0, 4))
    (z,) = fit_scales(rows, ["a"], normal="z")
    assert (z.unit(1), z.unit(3)) == (-1, 1)  # mean 2, standard deviation 1
    assert fit_scales(rows, ["a"], normal="none") == (Scale("a"),)


def test_out_of_range_scores_are_clipped_only_on_ranges() -> None:
    scales = (Scale("a", 0, 2),)
    assert ScoreForm(scales).unit({"a": 3}) == (1.0,)
    assert ScoreForm(scales, normal="z").unit({"a": 3}) == (1.5,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ScoreForm((Scale("a:b"),)), "cannot stand in a prompt"),
        (lambda: ScoreForm((Scale("a", 1, 1),)), "goes from 1 to 1"),
        (lambda: ScoreForm((Scale("a"), Scale("a"))), "once each"),
        (lambda: ScoreForm((Scale("a"),), "sgaa"), 'Did you mean "sga"'),
        (lambda: ScoreForm(HELPSTEER).check({"helpfulnes": 1}), 'Did you mean "helpfulness"'),
        (lambda: ScoreForm(HELPSTEER).check({"helpfulness": 4}), "between 0 and 1"),
        (lambda: ScoreForm(HELPSTEER).check({"helpfulness": True}), "must be a number"),
        (lambda: fit_scales([{"a": (1,)}], ["b"]), 'no attribute "b". They have: a.'),
        (lambda: fit_scales([]), "no attribute scores"),
        (lambda: fit_scales([{"a": (1, 1)}]), "has no scale"),
    ],
)
def test_what_cannot_be_is_said(make, words: str) -> None:
    with pytest.raises(SettingsError, match=words.replace("(", r"\(")):
        make()
