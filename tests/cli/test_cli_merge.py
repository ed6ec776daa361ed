"""`pluralign merge`: two runs of one start become a policy that every other command loads."""

from __future__ import annotations

from .conftest import Cli


def test_two_runs_become_one_policy(cli: Cli, short: list[str], tiny_model: str) -> None:
    for name, beta in (("a", "0.1"), ("b", "0.5")):
        assert cli("align", "dpo", *short, f"beta={beta}", "--output", f"runs/{name}").code == 0
    done = cli("merge", "runs/a", "runs/b", "--weights", "0.3,0.7", "--output", "runs/soup")
    assert (done.code, done.out) == (0, "")
    assert done.err == "note: 0.3 runs/a + 0.7 runs/b written to runs/soup\n"
    said = cli("generate", "runs/soup", "--prompt", "Hi", "--max-new-tokens", "4")
    assert (said.code, said.err) == (0, "")
    again = cli("merge", "runs/a", "runs/b", "--weights", "0.3,0.7", "--output", "runs/soup")
    assert (again.code, again.err) == (2, "error: runs/soup exists already. Choose another --output.\n")
    grid = cli("merge", "runs/soup", "runs/a", "--grid", "3", "--output", "runs/grid")  # a soup may be an ingredient
    assert grid.err.count("written to runs/grid/") == 3
    other = cli("merge", "runs/a", "embedded", "--weights", "0.5,0.5", "--output", "runs/wrong")
    assert other.code == 2
    assert "only policies trained from the same weights can be averaged" in other.err
    off = cli("merge", "runs/a", "runs/b", "--weights", "0.3,0.6", "--output", "runs/wrong")
    assert (
        off.err
        == "error: weights must be 0 or more and add up to 1: 0.3, 0.6 add up to 0.9. `extrapolate` allows others.\n"
    )
