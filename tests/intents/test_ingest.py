"""Sources of a knowledge base: JSON lines, plain text, and the running text of MediaWiki dumps."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.errors import RecordError, SettingsError
from pluralign.intents.ingest import passages_in, source_name
from pluralign.intents.wikitext import articles, plain_text

PAGE = """<page><title>{title}</title><ns>{ns}</ns>{more}<revision><text>{text}</text></revision></page>"""
HEAD = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">'


@pytest.mark.parametrize(
    ("markup", "wanted"),
    [
        ("'''Tea''' is a [[drink|hot drink]] of [[leaf]]s.", "Tea is a hot drink of leafs."),
        ("A {{tl|x {{y}} z}}B{{c}}.", "A B."),
        ("x<ref name=a>cite {{c}}</ref> y<ref name=a/> z<!-- no\nno -->.", "x y z."),
        ("{| class=a\n| b\n{| inner |}\n|}\nAfter.", "After."),
        ("[[File:a.jpg|thumb|A [[cat]] sits]]Text [[Category:Teas]]", "Text"),
        ("== Head ==\n* one\n# two\n:three", "one\ntwo\nthree"),
        ("[https://a.example the site] and [https://a.example]", "the site and"),
        ("5 &lt; 6 &amp; <b>bold</b>&nbsp;H<sub>2</sub>O __NOTOC__", "5 < 6 & bold H2O"),
        ("a }} b ]] c", "a b c"),
        ("x {{a|}} y {{b\n\nz", "x y\nz"),
        ("<math>x < y</math>so", "so"),
    ],
)
def test_running_text(markup: str, wanted: str) -> None:
    assert plain_text(markup) == wanted


@given(st.text(alphabet="{}[]|<>ref/' ab\n=*-!", max_size=120))
def test_broken_markup_breaks_nothing(markup: str) -> None:
    assert isinstance(plain_text(markup), str)


def test_deep_nesting_is_read_in_one_pass() -> None:
    assert plain_text("{{" * 20_000 + "}}" * 20_000 + "end") == "end"
    assert plain_text("[[" * 2_000 + "a" + "]]" * 2_000) == "a"


def test_a_dump(tmp_path: Path) -> None:
    pages = [
        PAGE.format(title="Tea", ns=0, more="", text="'''Tea''' is a drink. " * 3),
        PAGE.format(title="Talk:Tea", ns=1, more="", text="Talk."),
        PAGE.format(title="Teas", ns=0, more='<redirect title="Tea" />', text="#REDIRECT [[Tea]]"),
        PAGE.format(title="Moon", ns=0, more="", text="A &lt;ref&gt;x&lt;/ref&gt;moon."),
    ]
    path = tmp_path / "wiki.xml.bz2"
    path.write_bytes(bz2.compress((HEAD + "".join(pages) + "</mediawiki>").encode()))
    assert list(articles(path)) == [("Tea", "Tea is a drink. Tea is a drink. Tea is a drink."), ("Moon", "A moon.")]
    assert [p.title for p in passages_in(path)] == ["Tea", "Moon"]
    for damage in (path.read_bytes()[:-20], bz2.compress(b"<mediawiki><page>"), b"no dump"):
        path.write_bytes(damage)
        with pytest.raises(RecordError, match=r"wiki\.xml\.bz2.*no whole MediaWiki dump"):
            list(articles(path))


def test_rows_and_texts(tmp_path: Path) -> None:
    rows = [{"title": "Tea", "text": ["Tea is a drink.", " It is hot."]}, {"text": "No title here."},
            {"title": "Tea", "text": "Tea is a drink. It is hot."}]  # fmt: skip
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(passages_in(file))
    assert [(p.title, p.text) for p in found] == [("Tea", "Tea is a drink. It is hot."), ("", "No title here.")]
    file.write_text('{"title": "x"}\n')
    with pytest.raises(RecordError, match=r"p\.jsonl:1: no text"):
        list(passages_in(file))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "moon.txt").write_text("word " * 60 + ". " + "other " * 60 + ".")
    (tmp_path / "notes" / "aside.png").write_text("no")
    assert [p.title for p in passages_in(tmp_path / "notes")] == ["moon"]
    assert len(list(passages_in(tmp_path / "notes", size=50))) == 2
    assert source_name(tmp_path / "notes") == "notes (663 bytes, passages of 100 words)"
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(SettingsError, match="no known kind of source"):
        list(passages_in(tmp_path / "a.pdf"))
