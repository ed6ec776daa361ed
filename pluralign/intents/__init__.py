"""What a prompt is after (A-IPO): the knowledge pipeline, intent labels, and the intention module's training."""

from __future__ import annotations

from .anah import Anah
from .asking import Answer, Asking
from .bases import BaseDown, KnowledgeBase, MemoryBase, Passage, open_base
from .checking import Chain, Claim, FactChecker, Lexical, Verdict, factuality
from .knowledge import Knowledge, knowledge_of
from .labels import Proposal, given_intents, labelled, merged, propose, read_labels, write_labels
from .pipeline import Plan, knowledge_steps
from .sentences import passages_of, sentences
from .stages import STAGES
from .support import check, retrieve

__all__ = [
    "STAGES",
    "Anah",
    "Answer",
    "Asking",
    "BaseDown",
    "Chain",
    "Claim",
    "FactChecker",
    "Knowledge",
    "KnowledgeBase",
    "Lexical",
    "MemoryBase",
    "Passage",
    "Plan",
    "Proposal",
    "Verdict",
    "check",
    "factuality",
    "given_intents",
    "knowledge_of",
    "knowledge_steps",
    "labelled",
    "merged",
    "open_base",
    "passages_of",
    "propose",
    "read_labels",
    "retrieve",
    "sentences",
    "write_labels",
]
