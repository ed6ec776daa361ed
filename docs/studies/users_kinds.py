"""Kinds of people in votes, for docs/studies/users.md: EM of linear Bradley-Terry rewards (`mixtures.linear`) on frozen
features, held against the opinion groups that Polis computed from the votes themselves."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from users_data import POLIS, SHARED, features, read_people

from pluralign.data.votes import draw_pairs, read_votes
from pluralign.judging.statistics import mean_interval, proportion_interval
from pluralign.mixtures.latent import clustering_accuracy, marginal
from pluralign.mixtures.linear import fit_types

__all__ = ["KINDS", "run_kinds"]

KINDS = (1, 2, 3)
EACH, WIDTH, PENALTY = 50, 32, 10.0  # pairs of a person, components of the features, ridge


def run_kinds(output: Path) -> list[dict[str, Any]]:
    """A row for each conversation and number of kinds: those of kinds.jsonl, and those that lack there."""
    path = output / "kinds.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    for data in POLIS:
        for kinds in KINDS:
            if not any((r["data"], r["kinds"]) == (data, kinds) for r in rows):
                rows.append(_fit(data, kinds, output / "features"))
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(f"kinds {data} {kinds} {rows[-1]['seconds']} s", flush=True)
    return rows


def _fit(data: str, kinds: int, cache: Path) -> dict[str, Any]:
    """People in a group of Polis with 50 pairs; every fifth of them is held out and only measures."""
    started = time.time()
    table = features(read_people(data), "encoder", cache)[:, :WIDTH]
    table = table / table.std()
    votes = read_votes(SHARED / "polis_opendata" / POLIS[data])
    place = {key: i for i, key in enumerate(votes.statements)}
    people = [b for b in votes.ballots if b.group is not None and b.pairs >= EACH]
    gaps, who = [], []
    for u, ballot in enumerate(people):
        for better, worse in draw_pairs(ballot.agreed, ballot.disagreed, EACH, random.Random(f"0/{ballot.user}")):
            gaps.append(table[place[better]] - table[place[worse]])
            who.append(u)
    held = [i % 5 == 4 for i in range(len(people))]
    _, fit = fit_types(np.array(gaps), who, kinds, rounds=15, restarts=3, held=held, penalty=PENALTY)
    groups = [b.group for b in people]
    same = round(clustering_accuracy(fit.gamma, groups) * len(groups))
    return {
        "data": data, "kinds": kinds, "people": len(people), "eta": [round(e, 3) for e in sorted(fit.eta)[::-1]],
        "held_out": mean_interval(marginal(fit.loglik, fit.eta)[np.array(held)] / EACH).as_dict(),
        "groups": len(set(groups)), "agreement": proportion_interval(same, len(groups)).as_dict(),
        "largest": max(map(groups.count, set(groups))) / len(groups), "seconds": round(time.time() - started, 1),
    }  # fmt: skip
