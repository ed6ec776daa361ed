"""Heads: small modules on a reading of the backbone (sensed attribute scores, weights of objectives)."""
