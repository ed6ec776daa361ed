"""Kinds of people that nobody named: EM finds them and a policy of each (EM-DPO), and min-max regret one for all."""

from __future__ import annotations

from .em import EMHow, EMOutcome, run_em
from .fair import FairHow, FairOutcome, run_minmax
from .latent import clustering_accuracy, expectation_maximisation, marginal, responsibilities
from .linear import fit_types
from .regret import minmax, regrets

__all__ = [
    "EMHow",
    "EMOutcome",
    "FairHow",
    "FairOutcome",
    "clustering_accuracy",
    "expectation_maximisation",
    "fit_types",
    "marginal",
    "minmax",
    "regrets",
    "responsibilities",
    "run_em",
    "run_minmax",
]
