"""Text from a policy: `pluralign generate` for many prompts, `pluralign chat` for a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import typer

from ..errors import RecordError, SettingsError
from .console import console, quiet_libraries, warn

__all__ = ["EPILOG_CHAT", "EPILOG_GENERATE", "chat", "generate", "read_prompts", "scores_given"]

EPILOG_GENERATE = """\b
Examples:
  pluralign generate runs/dpo --prompt "How do I keep bread fresh?"
  pluralign generate runs/dpo --prompts questions.txt --temperature 0 > answers.jsonl
  pluralign generate runs/dpo --prompts prompts.jsonl --output answers.jsonl
  pluralign generate runs/sga --prompt "How do I keep bread fresh?" --attributes helpfulness=0.9,verbosity=0.2

\b
A text file holds one prompt a line. JSON lines hold `prompt` (text or messages) or `messages`. With --prompts, every
answer is one JSON line: prompt and response, for a policy that takes scores `attributes` (those used) and `sensed`
(which of them it chose itself), for one that infers intents `intent` and `intent_share` (its probability).
"""
EPILOG_CHAT = """\b
Examples:
  pluralign chat embedded
  pluralign chat runs/dpo --system "Answer in one sentence." --temperature 0.3
  pluralign chat runs/sga --attributes helpfulness=0.9

\b
Inside: /reset forgets the talk, /system TEXT sets the system turn, /quit leaves (so do Ctrl-D and Ctrl-C). For a policy
that takes scores: /set helpfulness 0.9, /unset helpfulness (or all, without a name), and /scores shows them. For one
that infers intents: /intent TEXT says what you are after, /intent alone has it infer that again.
"""

NO_SCORES = 'the policy "{}" takes no attribute scores.'

Tokens = typer.Option(256, "--max-new-tokens", min=1, help="At most so many tokens.")
Temperature = typer.Option(0.7, "--temperature", min=0.0, help="0 takes the likeliest token.")
TopP = typer.Option(0.9, "--top-p", help="Draw from the likeliest tokens that hold this much probability.")
Seed = typer.Option(0, "--seed", min=0, help="The same seed draws the same text.")
System = typer.Option(None, "--system", help="A system turn before the prompt.")
Attributes = typer.Option([], "--attributes", metavar="NAME=SCORE", help="Scores to steer by; others are sensed.")

Intent = typer.Option(None, "--intent", help="What the prompts are after; else inferred where there is a module.")


def generate(
    model: str = typer.Argument(..., help="Hub model, folder, run folder, or `embedded`."),
    prompt: str | None = typer.Option(None, help="One prompt; the answer appears as it is written."),
    prompts: Path | None = typer.Option(None, help="A file of prompts (.txt, .jsonl), or `-` for lines on stdin."),
    output: Path | None = typer.Option(None, help="Write JSON lines there instead of to stdout."),
    system: str | None = System,
    max_new_tokens: int = Tokens,
    temperature: float = Temperature,
    top_p: float = TopP,
    seed: int = Seed,
    attributes: list[str] = Attributes,
    intent: str | None = Intent,
    batch_size: int = typer.Option(16, min=1, help="Prompts written together."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
    as_json: bool = typer.Option(False, "--json", help="JSON lines for --prompt, too."),
) -> None:
    """Write responses to prompts."""
    if (prompt is None) == (prompts is None):
        raise SettingsError("give one of --prompt TEXT and --prompts FILE.")
    turns = [_turns(prompt, "--prompt", system)] if prompt is not None else list(read_prompts(prompts, system))  # type: ignore[arg-type]
    given = scores_given(attributes)
    policy = _policy(model, trust_remote_code, given, intent)
    from ..steering import Request, answer

    streams = prompt is not None and not as_json and output is None
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p,
                               "seed": seed, "attributes": given, "intent": intent}  # fmt: skip
    requests = [Request(turn, **options, place=i) for i, turn in enumerate(turns)]
    on_text = (lambda _, piece: _say(piece)) if streams else None
    answers = answer(policy, requests, batch_size=batch_size, on_text=on_text, warn=warn)
    if streams:
        print(flush=True)
        _show_scores(answers[0])
        return
    lines = [_line(policy, turn, one) for turn, one in zip(turns, answers, strict=True)]
    if output is None:
        _write(lines, sys.stdout)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8") as file:
        _write(lines, file)
    print(f"{len(lines):,} responses written to {output}", file=sys.stderr)


def _write(lines: list[dict[str, Any]], file: IO[str]) -> None:
    for line in lines:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _say(piece: str) -> None:
    print(piece, end="", flush=True)


def _line(policy: Any, turns: list[dict[str, Any]], got: Any) -> dict[str, Any]:
    line = {"prompt": turns, "response": got.text}
    if policy.scores:
        line |= {"attributes": got.attributes, "sensed": list(got.sensed)}
    if policy.intents or got.intent:
        line |= {"intent": got.intent, "intent_share": got.intent_share}
    return line


def _policy(model: str, trust_remote_code: bool, given: dict[str, float], intent: str | None = None) -> Any:
    """The policy. Raises SettingsError where it is not steered by the given scores, or does not know the intent."""
    quiet_libraries()
    from ..policy import Policy

    policy = Policy.load(model, trust_remote_code=trust_remote_code)
    _check_scores(policy, given)
    if policy.intents is not None:
        policy.intents.number(intent)
    return policy


# Scores


def scores_given(texts: list[str]) -> dict[str, float]:
    """What --attributes says. Raises SettingsError for what is no NAME=SCORE."""
    found: dict[str, float] = {}
    for text in (part.strip() for given in texts for part in given.split(",") if part.strip()):
        name, _, value = (part.strip() for part in text.rpartition("="))
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise SettingsError(f'--attributes "{text}" is no NAME=SCORE, such as helpfulness=0.9.')
    return found


def _check_scores(policy: Any, given: dict[str, float]) -> None:
    if policy.scores is not None:
        policy.scores.check(given)
    elif given:
        raise SettingsError(NO_SCORES.format(policy.name), remedy="Train one with scores: `pluralign align sga`.")


def _show_scores(got: Any) -> None:
    """The intent and the scores that an answer was written to, on stderr."""
    if got.intent_share is not None:
        found = got.intent or "no clear one"
        console(err=True).print(f"intent: {found} (inferred, {got.intent_share:.2f})", style="dim", markup=False)
    elif got.intent:
        console(err=True).print(f"intent: {got.intent}", style="dim", markup=False)
    if got.attributes:
        shown = (f"{n} {v:g}{' (sensed)' if n in got.sensed else ''}" for n, v in got.attributes.items())
        console(err=True).print(f"scores: {', '.join(shown)}", style="dim", markup=False)


def _turns(prompt: Any, where: str, system: str | None) -> list[dict[str, Any]]:
    """A prompt as messages. Raises RecordError where it is empty or no prompt."""
    from ..records import messages

    try:
        turns = [m.as_dict() for m in messages(prompt)]
    except RecordError as error:
        raise RecordError(error.reason, where=where) from None
    if not turns or not any(str(t["content"]).strip() for t in turns):
        raise RecordError("the prompt is empty.", where=where)
    return [{"role": "system", "content": system}, *turns] if system else turns


def read_prompts(path: Path, system: str | None) -> Iterator[list[dict[str, Any]]]:
    """The prompts of a file. Raises SettingsError where it is absent, RecordError (file and line) for a bad line."""
    if str(path) == "-":
        text = sys.stdin.read()
    elif not path.is_file():
        raise SettingsError(f"{path}: no such file.")
    else:
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise RecordError("the text is not UTF-8.", where=str(path)) from None
    found = False
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            found = True
            where = f"{path}:{number}"
            yield _turns(
                _prompt_of(line, where) if path.suffix in (".jsonl", ".json") else line.rstrip("\r"), where, system
            )
    if not found:
        raise RecordError("there are no prompts.", where=str(path))


def _prompt_of(line: str, where: str) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"not valid JSON ({error.msg}).", where=where) from None
    if isinstance(row, str):
        return row
    known = [k for k in ("prompt", "messages", "instruction", "question") if isinstance(row, dict) and row.get(k)]
    if not known:
        raise RecordError('no field "prompt" or "messages".', where=where)
    return row[known[0]]


# Chat


def chat(
    model: str = typer.Argument("embedded", help="Hub model, folder, run folder, or `embedded`."),
    system: str | None = System,
    max_new_tokens: int = Tokens,
    temperature: float = Temperature,
    top_p: float = TopP,
    seed: int = Seed,
    attributes: list[str] = Attributes,
    intent: str | None = Intent,
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
) -> None:
    """Talk with a policy, turn by turn."""
    talk = Talk(system=system, given=scores_given(attributes), intent=intent)
    policy = _policy(model, trust_remote_code, talk.given, intent)
    from ..steering import Request, answer

    if sys.stdin.isatty():
        more = ", /set NAME SCORE, /unset NAME, /scores" if policy.scores else ""
        more += ", /intent TEXT" if policy.intents else ""
        console().print(f"{policy.name}. /reset, /system TEXT, /quit{more}.", style="dim", markup=False)
    turn = 0
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "").strip()
            if said.startswith("/"):
                print(f"({_command(said, talk, policy)})", file=sys.stderr)
                continue
            if not said:
                continue
            talk.turns.append({"role": "user", "content": said})
            turn += 1
            request = Request(talk.shown(), max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
                              seed=seed + turn, attributes=dict(talk.given), intent=talk.intent)  # fmt: skip
            got = answer(policy, [request], on_text=lambda _, piece: _say(piece), warn=warn)[0]
            print(flush=True)
            _show_scores(got)
            talk.turns.append({"role": "assistant", "content": got.text})
        except (EOFError, KeyboardInterrupt):
            print(flush=True)
            return
        except _Leave:
            return


class _Leave(Exception):
    """/quit."""


@dataclass
class Talk:
    """What has been said, the system turn, and the scores and the intent that were set."""

    system: str | None = None
    given: dict[str, float] = field(default_factory=dict)
    intent: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)

    def shown(self) -> list[dict[str, str]]:
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]


def _command(said: str, talk: Talk, policy: Any) -> str:
    """What there is to say after a slash command."""
    word, _, rest = said.partition(" ")
    rest = rest.strip()
    if word in ("/quit", "/exit"):
        raise _Leave
    if word == "/reset":
        talk.turns = []
        return "the talk starts anew"
    if word == "/system":
        talk.system = rest or None
        return f"system turn {'set' if rest else 'removed'}"
    if word == "/intent":
        return _intent_command(rest, talk, policy)
    if word in ("/set", "/unset", "/scores"):
        return _score_command(word, rest, talk, policy)
    known = "/reset, /system TEXT, /set NAME SCORE, /unset NAME, /scores, /intent TEXT, /quit"
    return f'no command "{word}"; there are {known}'


def _intent_command(rest: str, talk: Talk, policy: Any) -> str:
    if rest and policy.intents is not None:
        try:
            policy.intents.number(rest)
        except SettingsError as error:
            return error.message.rstrip(".")
    talk.intent = rest or None
    if rest:
        return f"intent: {rest}"
    return "intents are inferred" if policy.intention is not None else "no intent is shown"


def _score_command(word: str, rest: str, talk: Talk, policy: Any) -> str:
    if policy.scores is None:
        return NO_SCORES.format(policy.name).rstrip(".")
    if word == "/set":
        name, _, value = rest.replace("=", " ").rpartition(" ")
        try:
            found = scores_given([f"{name}={value}"]) if name.strip() else {}
            _check_scores(policy, found)
        except SettingsError as error:
            return error.message.removeprefix("--attributes ").rstrip(".")
        if not found:
            return "/set takes a name and a score, such as /set helpfulness 0.9"
        talk.given |= found
    elif word == "/unset":
        if rest and rest not in talk.given:
            return f'"{rest}" is not set'
        talk.given = {name: value for name, value in talk.given.items() if rest and name != rest}
    other = "sensed" if policy.sensing is not None else "left out"
    return ", ".join(f"{n} {f'{talk.given[n]:g}' if n in talk.given else other}" for n in policy.scores.names)
