"""Answers as Markdown: footnotes, what is folded, and that a model's HTML stays text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from streamchat import (
    AssistantMessage,
    BilledUnits,
    ChatResponse,
    Citation,
    Source,
    TextContent,
    ThinkingContent,
    TokenCounts,
    ToolCall,
    ToolCallFunction,
    Usage,
)
from streamchat.protocol.markdown import Page, plain_words

from .helpers import examples

COMMONMARK = MarkdownIt("commonmark")
RENDERERS = [COMMONMARK, MarkdownIt("commonmark").enable(["table", "strikethrough"])]


def safe_markdown(text: str, marks: Iterable[tuple[int, list[str]]] = ()) -> str:
    """A text on a page of its own."""
    return Page().text(text, marks)


def tokens(renderer: MarkdownIt, text: str) -> list[Any]:
    """All tokens of a page, those of lines among them."""
    return [each for token in renderer.parse(text) for each in (token, *(token.children or ()))]


def codes(text: str) -> list[str]:
    """What a reader sees as code."""
    return [
        token.content
        for token in tokens(COMMONMARK, text)
        if token.type in ("fence", "code_block", "code_inline")
    ]


def has_html(text: str) -> bool:
    """Whether a renderer would hand HTML through."""
    kinds = {token.type for renderer in RENDERERS for token in tokens(renderer, text)}
    return not kinds.isdisjoint({"html_block", "html_inline"})


def cite(text: str, piece: str, *sources: Source) -> Citation:
    """A citation of the first such piece of a text."""
    start = text.index(piece)
    return Citation(start, start + len(piece), piece, list(sources), "TEXT_CONTENT")


def doc(name: str, title: object = None) -> Source:
    """A document with or without a title."""
    data = {"id": name, "text": "..."} | ({} if title is None else {"title": title})
    return Source("document", name, data)


def shown(text: str, *citations: Citation) -> str:
    """An answer of one text, shown."""
    return ChatResponse(
        "i", AssistantMessage([TextContent(text)], citations=[*citations])
    )._repr_markdown_()


def test_an_answer_has_footnotes_and_a_line_of_figures() -> None:
    """The text as the model wrote it, markers behind what is cited, each source once."""
    text = "Emperor penguins \U0001f427 live in **Antarctica**."
    citations = [
        cite(text, "Antarctica", doc("a", "All about ice"), doc("b")),
        cite(text, "penguins \U0001f427", doc("b")),
    ]
    message = AssistantMessage([TextContent(text)], citations=citations)
    usage = Usage(BilledUnits(1, 2), TokenCounts(12.0, 34))
    answer = ChatResponse("i", message, "COMPLETE", usage)
    assert (
        answer._repr_markdown_()
        == """\
Emperor penguins \U0001f427[^1] live in **Antarctica[^2][^1]**.

[^1]: Source **b**

[^2]: Source **a**: All about ice

*12 tokens in, 34 out \u00b7 COMPLETE*"""
    )


def test_thinking_is_folded_and_calls_are_code() -> None:
    """The plan is text; arguments stand as the model wrote them."""
    call = ToolCall("c", ToolCallFunction("get_weather", '{"city": "Lima"}'))
    message = AssistantMessage([ThinkingContent("Let me\nsee")], "I will look.", [call])
    assert (
        ChatResponse("i", message, "TOOL_CALL")._repr_markdown_()
        == """\
<details><summary>Thinking</summary>

Let me
see

</details>

I will look.

```text
get_weather({"city": "Lima"})
```

*TOOL\\_CALL*"""
    )


@pytest.mark.parametrize(
    ("usage", "finish", "error", "line"),
    [
        (Usage(BilledUnits(1, 2), TokenCounts(3, 4)), None, None, "*3 tokens in, 4 out*"),
        (Usage(BilledUnits(1, 2)), None, None, "*1 tokens in, 2 out*"),
        (Usage(tokens=TokenCounts(output_tokens=4)), "X", None, "*4 tokens out \u00b7 X*"),
        (Usage(tokens=TokenCounts(input_tokens=3.5)), "X", None, "*3.5 tokens in \u00b7 X*"),
        (Usage(), "ERROR", "<b>no", "*ERROR \u00b7 &lt;b&gt;no*"),
        (Usage(tokens=TokenCounts(float("nan"), 10**400)), None, None, ""),
        (Usage(), None, None, ""),
    ],
)
def test_the_last_line_says_what_is_known(
    usage: Usage, finish: str | None, error: str | None, line: str
) -> None:
    """Counted, else billed; nothing if nothing is known, or if it is nonsense."""
    answer = ChatResponse("i", AssistantMessage([TextContent("a")]), finish, usage, [], error)
    assert answer._repr_markdown_() == "\n\n".join(filter(None, ["a", line]))


def test_an_answer_without_anything_says_so() -> None:
    """A cell shows more than nothing."""
    assert ChatResponse()._repr_markdown_() == "*no text*"


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("a b c", ["a b c", "b"], "a b[^2] c[^1]"),
        ("a b c", ["a b", "b c"], "a b[^1] c[^2]"),
        ("a b c", ["b c", "a b c"], "a b c[^1][^2]"),
        ("see `x y` now", ["see `x"], "see `x y`[^1] now"),
        ("see ``x ` y`` now", ["x ", "y"], "see ``x ` y``[^1][^2] now"),
        ("a\n```py\nx = 1\n```\nb", ["x"], "a\n```py\nx = 1\n```\n[^1]\n\nb"),
        ("a\n```py\nx = 1\n```", ["1\n```"], "a\n```py\nx = 1\n```\n[^1]\n"),
        ("~~~\nx\n```\ny", ["x"], "~~~\nx\n```\ny\n~~~\n[^1]\n"),
        ("- a\n\n  ```\n  x\n  ```\n- b", ["x"], "- a\n\n  ```\n  x\n  ```\n  [^1]\n\n- b"),
        ("- ```\n  x\n\nb", ["x"], "- ```\n  x\n\n[^1]\n\nb"),
        ("> ```\n> x\n> ```\nb", ["x"], "> ```\n> x\n> ```\n> [^1]\n\nb"),
        ("a [doc](http://x/y) b", ["doc"], "a [doc](http://x/y)[^1] b"),
        ("a http://x/y b", ["http://x"], "a http://x/y[^1] b"),
        ("a <http://x/y> b", ["http://x"], "a <http://x/y>[^1] b"),
        ("so $x^2$ is", ["so $x"], "so $x^2$[^1] is"),
        ("from $5 to $6 now", ["$5"], "from $5[^1] to $6 now"),
        ("$$\nx\n$$", ["x"], "$$\nx\n$$[^1]"),
        ("a(b)", ["a"], "a[^1]\\(b)"),
        ("a\n\nb", ["a\n\n"], "a[^1]\n\nb"),
        ("a\n: b", ["a\n"], "a[^1]\n: b"),
        ("  \n: b", ["  \n"], "  \n: b[^1]"),
        ("| a | b |\n| --- | --- |\n| c | d |", ["d |"], "| a | b |\n| --- | --- |\n| c | d[^1] |"),
        ("| a | b |\n| --- | --- |\n| c | d |", ["b |\n| ---"], "| a | b[^1] |\n| --- | --- |\n| c | d |"),
        ("a\n\n***\n\nb", ["a\n\n***"], "a[^1]\n\n***\n\nb"),
    ],
)  # fmt: skip
def test_markers_break_nothing(text: str, pieces: list[str], expected: str) -> None:
    """Behind the cited words, or at the next place that is not code, a link, a formula or a rule."""
    citations = [cite(text, piece, doc(f"d{number}")) for number, piece in enumerate(pieces)]
    numbers = sorted(range(len(pieces)), key=lambda number: citations[number].end)
    marked = shown(text, *citations).split("\n\n[^1]: ")[0]
    if numbers != sorted(numbers):
        marked = marked.replace("[^1]", "[^x]").replace("[^2]", "[^1]").replace("[^x]", "[^2]")
    assert marked == expected


def test_footnotes_of_the_model_keep_their_numbers() -> None:
    """Ours get other labels."""
    text = "As they say[^1].\n\n[^1]: Somebody."
    assert shown(text, cite(text, "As they", doc("a"))) == (
        "As they[^source-1] say[^1].\n\n[^1]: Somebody.\n\n[^source-1]: Source **a**"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (doc("a_b*", "<i>x</i>\n[y](z)"), "Source **a\\_b\\***: &lt;i&gt;x&lt;/i&gt; \\[y\\]\\(z\\)"),
        (doc("", "t"), "Source without an id: t"),
        (Source(), "Source without an id"),
        (Source("tool", "c:0", None, {"title": "x"}), "Source **c\\:0**"),
        (doc("a", 5), "Source **a**"),
        (doc("a" * 300), f"Source **{'a' * 200}\u2026**"),
    ],
)  # fmt: skip
def test_words_of_a_source_are_words(source: Source, words: str) -> None:
    """No Markdown, no HTML, one line, not too long."""
    assert shown("x", cite("x", "x", source)) == f"x[^1]\n\n[^1]: {words}"
    page = tokens(COMMONMARK, shown("x", cite("x", "x", source)))
    # Where footnotes are not known, the lines are text: no link to a "source" as its address.
    assert {token.type for token in page}.isdisjoint({"link_open", "html_inline", "html_block"})


def test_a_citation_without_a_source_is_marked_too() -> None:
    """The words were cited, and the footnote says that nobody said from where."""
    assert shown("x", cite("x", "x")) == "x[^1]\n\n[^1]: Source not named"


PIECES = [
    *("`", "``", "```", "~~~", "\n", "\n\n", " ", "  ", "    ", "\t", "- ", "1. ", "> ", "# ", "a"),
    *("<b>", "</b>", "<!-- ", "-->", "<?x", "<script>", "<", ">", "|", "\n| - | - |\n", "\\", "$", "$$"),
    *("\\[", "\\]", "[", "](", ")", "<https://x>", '<https://x" a="`">', "```py\n", "\n```\n", "[a]: /b '"),
]  # fmt: skip
pages = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(pages)
@example("`a\n\n<script>\n\n`")
@example("`a\n# <script>`")
@example("foo `bar\nbaz` <script> `qux")
@example("\n\n| ` | <script> | ` |\n| - | - | - |\n| ` | <script> | ` |")
@example("| a |\n| - |\n| ` | ` `<script>` `")
@example("- a\n\n  ```\n<script>")
@example("~~~|~~~\n| - | - |\n<script>")
@example("> ```\n<script>")
@example("a\n    ```\n    <script>")
@example("\\`<script>`")
@example("[ ` ](x) `<b>`")
@example('<a title="`">`<script>`')
@examples(1500)
def test_no_html_of_a_model_reaches_the_page(text: str) -> None:
    """By two readings of Markdown, with and without tables, whatever the text looks like."""
    assert not has_html(safe_markdown(text))
    assert not has_html(f"a\n\n{safe_markdown(text)}\n\nb")


@given(st.lists(st.tuples(st.booleans(), pages), min_size=2, max_size=3))
@example([(False, "a\n---~~~"), (False, "~~~\n<script>\n~~~")])
@example([(False, "a\n---~~~"), (True, "~~~\n<script>\n~~~")])
@examples(500)
def test_no_text_changes_how_the_next_one_is_read(texts: list[tuple[bool, str]]) -> None:
    """Texts and code of one page, in any order."""
    page = Page()
    parts = [page.code(text) if is_code else page.text(text) for is_code, text in texts]
    assert not has_html("\n\n".join(parts))


def test_all_short_texts_are_without_html() -> None:
    """Each text of four such pieces around a tag."""
    few = ["`", "``", "\n", "```\n", "  ", "| ", "> ", "- ", "\\"]
    for before in product(few, repeat=3):
        for after in few:
            text = "".join(before) + "<script>" + after
            assert not has_html(safe_markdown(text)), text


plain_pages = st.lists(
    st.sampled_from(
        ["`", "``", "```py\n", "~~~\n", "\n", "\n\n", " ", "a", "b c", "<b>", "(", "- "]
    ),
    min_size=1,
    max_size=14,
).map("".join)


@given(plain_pages, st.data())
@examples(1000)
def test_markers_never_get_into_code(text: str, data: st.DataObject) -> None:
    """Wherever the citations end; each is there, and nothing of the text is lost."""
    ends = data.draw(st.lists(st.integers(1, len(text)), min_size=1, max_size=3))
    marked = safe_markdown(text, [(end, [f"[^{end}]"]) for end in ends])
    assert "[^" not in "".join(codes(marked))
    bare = marked.replace("&lt;", "<")
    for end in ends:
        assert f"[^{end}]" in marked
        bare = bare.replace(f"[^{end}]\\(", "(").replace(f"[^{end}]", "")
    assert "".join(bare.split()).startswith("".join(text.split()))


@pytest.mark.parametrize(
    "text",
    [
        "Use `List<int>` and ``a ` <b>``, or:\n\n```html\n<div>\n\n</div>\n```\n\nDone.",
        "1. First\n\n   ```html\n   <div>\n   ```\n2. Second `<b>`",
        "~~~~\n<a>\n~~~\n```\n<b>\n~~~~\n`<c>`",
        "Costs $5.\n\n`<b>`\n\n```\n<b>\n```",
        "$$\na<b\n$$\n\n`<b>`",
        "a < b, a<5, `<b>` and <https://example.com>",
    ],
)
def test_code_stays_as_it_is(text: str) -> None:
    """What everybody reads as code is shown to the letter, tags included."""
    assert codes(text) == codes(safe_markdown(text))
    assert "<" in "".join(codes(text))


def test_a_formula_has_no_entities() -> None:
    """TeX knows none; a space means nothing to it."""
    assert safe_markdown("$a<b$, a<b") == "$a< b$, a&lt;b"


def test_a_tag_that_is_escaped_stays_so() -> None:
    """The model's backslash is not put in front of an entity, which would show the entity."""
    assert safe_markdown("\\<b> \\\\<b> `\\<b>`") == "&lt;b> \\\\&lt;b> `\\<b>`"


def test_fenced_code_that_is_open_is_closed() -> None:
    """So that what follows an unfinished answer is not code."""
    assert safe_markdown("```py\nx") == "```py\nx\n```"
    message = AssistantMessage([ThinkingContent("~~~\nx"), TextContent("````\ny")])
    text = ChatResponse("i", message)._repr_markdown_()
    assert text.index("x\n~~~\n\n</details>") and text.endswith("````\ny\n````")


@given(st.text())
@examples(200)
def test_words_of_others_are_one_line_without_markup(words: str) -> None:
    """Ids, titles, names and errors."""
    page = tokens(COMMONMARK, f"**{plain_words(words)}x**")
    allowed = {"paragraph_open", "paragraph_close", "inline", "text", "strong_open", "strong_close"}
    assert {token.type for token in page} <= allowed | {"text_special"}


def test_long_arguments_are_cut_and_fences_are_longer_than_what_they_hold() -> None:
    """A call is one line of code, whatever the model wrote."""
    calls = [
        ToolCall("c", ToolCallFunction("f", "x" * 600)),
        ToolCall("c", ToolCallFunction("g\n", "````")),
    ]
    text = ChatResponse("i", AssistantMessage([], "", calls))._repr_markdown_()
    assert text == f"`````text\nf({'x' * 500}\u2026)\ng (````)\n`````"
