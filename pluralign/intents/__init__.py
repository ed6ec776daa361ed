"""What a prompt is after (A-IPO): the knowledge pipeline, intent labels, and the training of the intention module."""

from __future__ import annotations
