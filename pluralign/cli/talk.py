"""Text from a policy: `pluralign generate` for many prompts, `pluralign chat` for a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import typer

from ..errors import RecordError, SettingsError
from .console import console, quiet_libraries, warn

__all__ = ["EPILOG_CHAT", "EPILOG_GENERATE", "chat", "generate"]

EPILOG_GENERATE = """\b
Examples:
  pluralign generate runs/dpo --prompt "How do I keep bread fresh?"
  pluralign generate runs/dpo --prompts questions.txt --temperature 0 > answers.jsonl
  pluralign generate runs/dpo --prompts prompts.jsonl --output answers.jsonl

\b
A text file holds one prompt a line. JSON lines hold `prompt` (text or messages) or `messages`. With --prompts, every
answer is one JSON line: prompt and response.
"""
EPILOG_CHAT = """\b
Examples:
  pluralign chat embedded
  pluralign chat runs/dpo --system "Answer in one sentence." --temperature 0.3

\b
Inside: /reset forgets the talk, /system TEXT sets the system turn, /quit leaves (so do Ctrl-D and Ctrl-C).
"""

Tokens = typer.Option(256, "--max-new-tokens", min=1, help="At most so many tokens.")
Temperature = typer.Option(0.7, "--temperature", min=0.0, help="0 takes the likeliest token.")
TopP = typer.Option(0.9, "--top-p", help="Draw from the likeliest tokens that hold this much probability.")
Seed = typer.Option(0, "--seed", min=0, help="The same seed draws the same text.")
System = typer.Option(None, "--system", help="A system turn before the prompt.")


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
    batch_size: int = typer.Option(16, min=1, help="Prompts written together."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
    as_json: bool = typer.Option(False, "--json", help="JSON lines for --prompt, too."),
) -> None:
    """Write responses to prompts."""
    if (prompt is None) == (prompts is None):
        raise SettingsError("give one of --prompt TEXT and --prompts FILE.")
    turns = [_turns(prompt, "--prompt", system)] if prompt is not None else list(_read_prompts(prompts, system))  # type: ignore[arg-type]
    policy = _policy(model, trust_remote_code)
    stream = None
    if prompt is not None and not as_json and output is None:
        stream = _say
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p,
                               "seed": seed, "batch_size": batch_size, "warn": warn}  # fmt: skip
    responses = policy.generate(turns, stream=stream, **options)
    if stream is not None:
        print()
        return
    lines = [{"prompt": p, "response": r} for p, r in zip(turns, responses, strict=True)]
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


def _policy(model: str, trust_remote_code: bool) -> Any:
    quiet_libraries()
    from ..policy import Policy

    return Policy.load(model, trust_remote_code=trust_remote_code)


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


def _read_prompts(path: Path, system: str | None) -> Iterator[list[dict[str, Any]]]:
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
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run code that comes with the model."),
) -> None:
    """Talk with a policy, turn by turn."""
    policy = _policy(model, trust_remote_code)
    out = console()
    if sys.stdin.isatty():
        out.print(f"{policy.name}. /reset, /system TEXT, /quit.", style="dim", markup=False)
    talk: list[dict[str, str]] = []
    turn = 0
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "").strip()
            if said.startswith("/"):
                talk, system = _command(said, talk, system)
                continue
            if not said:
                continue
            talk.append({"role": "user", "content": said})
            shown = [{"role": "system", "content": system}, *talk] if system else talk
            turn += 1
            options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
            answer = policy.chat(shown, seed=seed + turn, stream=_say, warn=warn, **options)
            print(flush=True)
            talk.append({"role": "assistant", "content": answer})
        except (EOFError, KeyboardInterrupt):
            print(flush=True)
            return
        except _Leave:
            return


class _Leave(Exception):
    """/quit."""


def _command(said: str, talk: list[dict[str, str]], system: str | None) -> tuple[list[dict[str, str]], str | None]:
    """(the talk, the system turn) after a slash command."""
    word, _, rest = said.partition(" ")
    if word in ("/quit", "/exit"):
        raise _Leave
    if word == "/reset":
        print("(the talk starts anew)", file=sys.stderr)
        return [], system
    if word == "/system":
        print(f"(system turn {'set' if rest.strip() else 'removed'})", file=sys.stderr)
        return talk, rest.strip() or None
    print(f'(no command "{word}"; there are /reset, /system TEXT, /quit)', file=sys.stderr)
    return talk, system
