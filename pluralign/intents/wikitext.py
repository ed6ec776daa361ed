"""The text of MediaWiki markup, and the articles of a dump, read as a stream.

What has no running text (templates, tables, references, files, categories) is left out; links keep their words. It is a
reader for retrieval, not a renderer: text that a template would have written is lost.
"""

from __future__ import annotations

import bz2
import gzip
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from ..errors import RecordError

__all__ = ["articles", "plain_text"]

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_REFERENCE = re.compile(r"<ref\b[^>]*/>|<ref\b[^>]*>.*?</ref\s*>", re.DOTALL | re.IGNORECASE)
_OTHER = re.compile(
    r"<(math|gallery|timeline|syntaxhighlight|score|code)\b[^>/]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_BRACES = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})")  # {{a|}} ends with }}, no table
_BRACKETS = re.compile(r"\[\[|\]\]")
_URL = re.compile(r"\[(?:https?:)?//[^\s\]]+(?:\s+([^\]]*))?\]")
_HEADING = re.compile(r"^=+[^=\n].*?=+\s*$", re.MULTILINE)
_LIST = re.compile(r"^[*#:;]+\s*", re.MULTILINE)
_MAGIC = re.compile(r"__[A-Z]{3,}__")
ASIDE = ("file", "image", "category", "media", "template", "help", "portal")


def plain_text(markup: str) -> str:
    """The running text of an article's markup, paragraphs on lines of their own."""
    text = _COMMENT.sub("", markup)
    text = _REFERENCE.sub("", text)
    text = _OTHER.sub("", text)
    text = _without_braces(text)
    text = _links(text)
    text = _URL.sub(lambda found: found[1] or "", text)
    text = _MAGIC.sub("", _TAG.sub("", text))
    text = _LIST.sub("", _HEADING.sub("", text))
    text = html.unescape(text.replace("'''", "").replace("''", "")).replace("\xa0", " ")
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _without_braces(text: str) -> str:
    """Without templates and tables, however deep; what is never closed is left out to the end of its paragraph."""
    out: list[str] = []
    depth = at = 0
    for mark in _BRACES.finditer(text):
        opens = mark[0][0] == "{"
        if depth == 0:  # text before it; a mark that closes nothing goes
            out.append(text[at : mark.start()])
            at = mark.end()
        depth = depth + 1 if opens else max(0, depth - 1)
        if depth == 0:
            at = mark.end()
    if depth == 0:
        out.append(text[at:])
    else:  # broken markup: take up again after a blank line
        out += ["\n\n", text[at:].partition("\n\n")[2]]
    return "".join(out)


def _links(text: str) -> str:
    """[[A|b]] as b, [[A]] as A; files and categories not at all, links inside of their captions neither."""
    stack: list[list[str]] = [[]]
    at = 0
    for mark in _BRACKETS.finditer(text):
        stack[-1].append(text[at : mark.start()])
        at = mark.end()
        if mark[0] == "[[":
            stack.append([])
        elif len(stack) > 1:
            stack[-2].append(_link("".join(stack.pop())))
    stack[-1].append(text[at:])
    return "".join(part for level in stack for part in level)


def _link(inner: str) -> str:
    target, bar, _ = inner.partition("|")
    space = target.partition(":")
    if space[1] and space[0].strip().lower() in ASIDE:
        return ""
    return inner.rpartition("|")[2] if bar else target.lstrip(":")


def articles(path: Path) -> Iterator[tuple[str, str]]:
    """(title, text) of the articles of a dump (.xml, .xml.bz2, .xml.gz), one at a time; redirects and pages that are no
    articles are left out. Raises RecordError where the file is cut off or no such XML."""
    with _opened(path) as file:
        try:
            root: Any = None
            for event, element in ElementTree.iterparse(file, events=("start", "end")):
                if root is None:
                    root = element
                if event == "end" and _tag(element) == "page":
                    found = _article(element)
                    root.clear()  # pages that were read would stay in memory
                    if found is not None:
                        yield found
        except (ElementTree.ParseError, EOFError, OSError) as error:
            raise RecordError(f"no whole MediaWiki dump ({error}).", where=str(path)) from None


def _article(page: Any) -> tuple[str, str] | None:
    fields = {_tag(child): child for child in page}
    space = fields["ns"].text if "ns" in fields else "0"
    if "redirect" in fields or (space or "0").strip() != "0" or "revision" not in fields:
        return None
    markup = next((child.text for child in fields["revision"] if _tag(child) == "text"), None)
    title = (fields["title"].text or "").strip() if "title" in fields else ""
    if not markup or markup.lstrip().upper().startswith("#REDIRECT"):
        return None
    text = plain_text(markup)
    return (title, text) if text else None


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _opened(path: Path) -> IO[Any]:
    if path.suffix == ".bz2":
        return bz2.open(path, "rb")
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")
