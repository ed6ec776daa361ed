"""A safety classifier behind an endpoint that speaks OpenAI's chat completions, such as vLLM serving Llama Guard."""

from __future__ import annotations

from collections.abc import Sequence

from ..endpoints import Endpoint, Reply, Request
from ..records import Message, Messages
from .verdicts import Classifier, Verdict, parse_verdict

__all__ = ["guard_endpoint"]

ANSWER = 48  # tokens: "unsafe" and every category
LONGEST = 200  # characters that are kept of what is no verdict


def guard_endpoint(
    url: str, *, model: str | None = None, workers: int = 8, timeout: float = 120, tries: int = 4
) -> Classifier:
    """The classifier served under `url` (".../v1"), asked by up to `workers` requests at a time.

    The key comes from the environment (PLURALIGN_API_KEY). `model` may be left out where the endpoint serves a single
    one. Answers are parsed strictly; a conversation that the endpoint refuses (too long, roles out of order) has no
    verdict. Other failures are tried `tries` times, and then raise PluralignError: no record passes because nobody
    answered. Raises SettingsError for what is no address.
    """
    endpoint = Endpoint.open(url, model, workers=workers, timeout=timeout, tries=tries)

    def classify(conversations: Sequence[Messages]) -> list[Verdict]:
        return [_read(reply) for reply in endpoint.ask([_request(turns) for turns in conversations])]

    return classify


def _request(turns: Messages) -> Request:
    """Turns of the system and of tools are left out: such classifiers know a user and an agent."""
    said = tuple(Message(t.role, t.content) for t in turns if t.role in ("user", "assistant") and t.content)
    return Request(said, max_tokens=ANSWER)


def _read(reply: Reply) -> Verdict:
    if reply.error:
        why = f"not asked: {reply.error}" if reply.finish == "refused" else reply.error
        return Verdict(None, answer=why[:LONGEST])
    return parse_verdict(reply.text)
