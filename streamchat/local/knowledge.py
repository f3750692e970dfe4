"""What the demo model can say without documents and tools. Pure; imports nothing.

A handful of terms, small talk, sums, and what was said earlier in the conversation; for the rest an
honest answer that names the subject.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from streamchat.local.conversation import Conversation
from streamchat.local.words import is_stop_word, words

__all__ = ["plain_answer"]

MAX_LENGTH_ASKED = 20_000
"""Words at most of an answer whose length was asked for ("write 500 words about ...")."""

GLOSSARY: dict[tuple[str, ...], str] = {
    ("llm", "large language model", "language model"): (
        "An LLM, or large language model, is a neural network trained on a great deal of text to "
        "predict the next token. Doing that well makes it able to answer questions, summarise, "
        "translate and write code. It answers a token at a time, which is why its answers can be "
        "streamed."
    ),
    ("rag", "retrieval augmented generation", "retrieval-augmented generation"): (
        "RAG, retrieval-augmented generation, means looking up documents first and giving them to "
        "the model together with the question. The answer then rests on those documents instead of "
        "on what the model happens to remember. Cohere's models also return citations that say "
        "which sentence comes from which document."
    ),
    ("token", "tokens", "tokenization", "tokenizer"): (
        "A token is the unit in which a language model reads and writes: a short word, a piece of "
        "a longer one, or a punctuation mark. In English a token is about four characters. Prompts "
        "and answers are measured, limited and billed in tokens."
    ),
    ("server-sent events", "server sent events", "sse"): (
        "Server-sent events are a simple text format for pushing messages over one long HTTP "
        "response. Each event is a few lines such as `event:` and `data:`, ended by a blank line. "
        "Chat v2 streams its answers this way."
    ),
    ("streaming", "stream", "streamed"): (
        "Streaming means sending an answer piece by piece while it is still being written. The "
        "reader sees the first words within a moment instead of waiting for the last one. Cohere's "
        "Chat v2 API sends the pieces as server-sent events, about one token each."
    ),
    ("tool calling", "tool use", "function calling", "tool call"): (
        "Tool calling lets a model ask for a function to be run. You describe the tools, the model "
        "answers with the names and arguments of the calls it wants, your program runs them and "
        "sends the results back, and the model then writes its answer from them."
    ),
    ("citation", "citations"): (
        "A citation links a piece of an answer to what supports it. It says where the piece starts "
        "and ends in the text and names its sources, which are documents or tool results. That "
        "lets a reader check the answer."
    ),
    ("embedding", "embeddings"): (
        "An embedding is a list of numbers that stands for the meaning of a text. Texts that mean "
        "similar things have embeddings that lie close together, which is what semantic search "
        "uses."
    ),
    ("streamchat",): (
        "streamchat is an asyncio client library for Cohere's Chat v2 API. It streams answers as "
        "typed events to async callbacks, keeps the assembled answer at hand, and comes with this "
        "local server, so that it can be tried without a key."
    ),
    ("cohere",): (
        "Cohere is a company that builds language models for businesses, among them the Command "
        "family for chat, Embed for search and Rerank for sorting results. Its Chat v2 API answers "
        "questions, calls tools and cites documents."
    ),
    ("asyncio",): (
        "asyncio is Python's standard library for concurrent code with `async` and `await`. One "
        "event loop runs many tasks in a single thread and switches between them whenever one "
        "waits, for example for the network. That suits programs that hold many streams open."
    ),
    ("python",): (
        "Python is a general-purpose programming language known for readable code and a large "
        "ecosystem of libraries. It is widely used for web services, data work and machine "
        "learning."
    ),
    ("api",): (
        "An API, or application programming interface, is the set of calls through which one "
        "program uses another. A web API takes them over HTTP, most often with JSON in and out."
    ),
    ("json",): (
        "JSON is a text format for data: objects, arrays, strings, numbers, `true`, `false` and "
        "`null`. Nearly every programming language can read and write it."
    ),
}
"""Terms, in lower case, and what is said about them; earlier entries win."""

_OPENERS = ("", "Good question. ", "In short: ")
_ABOUT_ME = (
    "I am streamchat's local demo model: a small program on this machine that speaks Cohere's Chat "
    "v2 protocol. I know a few terms, can quote and cite the documents you send, call your tools "
    "and fill in JSON schemas. Set CO_API_KEY to talk to Cohere's own models."
)
_GENERIC = (
    (
        "You asked about {subject}. I am streamchat's local demo model, so what I can tell you "
        "about {subject} is limited: there is no language model behind me. Send documents, tools "
        "or a JSON schema and I will use them, or set CO_API_KEY to ask one of Cohere's models."
    ),
    (
        "About {subject} I have little to say, because this is streamchat's local demo model and "
        "not a language model. It streams, cites the documents that you send, calls tools and "
        "fills in JSON schemas. With CO_API_KEY set, the same question goes to Cohere."
    ),
    (
        "{subject}: that is beyond streamchat's local demo model, which runs on this machine and "
        "knows only a handful of terms. Give it documents about {subject} and it will quote and "
        "cite them. With CO_API_KEY set, one of Cohere's models answers instead."
    ),
)


def plain_answer(talk: Conversation, seed: int) -> str:
    """An answer to the last question, never empty.

    Args:
        talk: the conversation.
        seed: chooses among wordings.
    """
    for attempt in (_recalled, _small_talk, _counted, _computed):
        answer = attempt(talk)
        if answer:
            return answer
    if talk.images:
        what = "an image" if talk.images == 1 else f"{talk.images} images"
        return (
            f'You sent {what} and said "{talk.question[:80]}". I am streamchat\'s local demo model '
            "and cannot look at pictures; Cohere's vision models can."
        )
    known = _known(talk.question)
    answer = (
        _OPENERS[seed % len(_OPENERS)] + known
        if known
        else _GENERIC[seed % len(_GENERIC)].format(subject=_mention(talk.question))
    )
    return _stretched(answer[0].upper() + answer[1:], talk.question)


def _known(question: str) -> str:
    """What the glossary says about the terms of the question, at most two of them."""
    spoken = re.findall(r"[\w-]+", question.casefold())
    said = f" {' '.join(spoken)} "
    found = [text for terms, text in GLOSSARY.items() if any(f" {term} " in said for term in terms)]
    return " ".join(found[:2])


_QUESTION_START = re.compile(
    r"(?:(?:can|could|would|will) you |please |what(?:'s|\u2019s| is| are| was| were| does| do)? "
    r"|tell me (?:more )?about |explain |describe |who (?:is|are|was|were) "
    r"|how (?:do|does|can) (?:i |you )?"
    r"|why (?:is|are|do|does) |do you know |write .{0,30}about |say something about )+",
    re.IGNORECASE,
)


def subject_of(question: str) -> str:
    """What the question is about, in its own words; at most 80 code points."""
    first = re.split(r"[?!\u3002\uff1f\uff01\n]|\.\s", question.strip(), maxsplit=1)[0].strip(
        " .:;,¿¡"
    )
    rest = _QUESTION_START.sub("", first, count=1) if _QUESTION_START.match(first) else first
    subject = rest.strip() or first or "nothing in particular"
    return subject if len(subject) <= 80 else subject[:79].rstrip() + "…"


def _mention(question: str) -> str:
    """The subject; in quotation marks when it is a whole sentence that nothing was taken from."""
    subject = subject_of(question)
    return f'"{subject}"' if question.startswith(subject) and " " in subject else subject


# --- earlier turns, small talk, sums -------------------------------------------------------------

_NAME_TOLD = re.compile(
    r"\b(?:my name is|call me|i am called)\s+([^\W\d_][\w'\u2019-]*)", re.IGNORECASE
)


def _recalled(talk: Conversation) -> str:
    question = talk.question.casefold()
    told = [
        found.group(1)
        for text in (*talk.earlier, talk.question)
        for found in _NAME_TOLD.finditer(text)
    ]
    if re.search(r"what(?:'s|\u2019s| is| was) my name|who am i\b", question):
        if told:
            return f"Your name is {told[-1]}, as you told me earlier."
        return "You have not told me your name yet."
    if re.search(r"\bwhat did i (?:just |first )?(?:say|ask|write|tell)", question):
        if not talk.earlier:
            return "This is the first thing you said in this conversation."
        earlier = talk.earlier[0] if "first" in question else talk.earlier[-1]
        return f'You said: "{earlier[:300]}"'
    if told and _NAME_TOLD.search(talk.question) and "?" not in question:
        return f"Nice to meet you, {told[-1]}. What would you like to know?"
    return ""


_SMALL_TALK: tuple[tuple[str, str], ...] = (
    (r"(?:hi|hello|hey|hallo|hola|good (?:morning|day|evening))\b.{0,20}", f"Hello! {_ABOUT_ME}"),
    (r"(?:thanks|thank you|thx)\b.{0,30}", "You are welcome."),
    (r"(?:bye|goodbye|see you)\b.{0,20}", "Goodbye!"),
    (r".{0,20}(?:who|what) are you\b.{0,20}", _ABOUT_ME),
    (r".{0,10}how are you\b.{0,20}", "Running smoothly, thank you. What would you like to know?"),
)


def _small_talk(talk: Conversation) -> str:
    question = talk.question.strip()
    if not question and not talk.images:
        return f"Hello! {_ABOUT_ME}"
    for pattern, answer in _SMALL_TALK:
        if re.fullmatch(pattern, question, re.IGNORECASE):
            return answer
    return ""


def is_small_talk(question: str) -> bool:
    """Whether it is a greeting or thanks, nothing to be worked on."""
    said = question.strip()
    return any(re.fullmatch(pattern, said, re.IGNORECASE) for pattern, _ in _SMALL_TALK)


def is_sum(question: str) -> bool:
    """Whether it is a sum of two numbers."""
    return _SUM.fullmatch(question.strip()) is not None


def _counted(talk: Conversation) -> str:
    found = re.search(r"\bcount (?:from (\d{1,6}) )?(?:up )?to (\d{1,6})\b", talk.question, re.I)
    if not found:
        return ""
    first, last = int(found.group(1) or 1), int(found.group(2))
    return ", ".join(map(str, range(first, min(last, first + MAX_LENGTH_ASKED) + 1))) + "."


_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "plus": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "minus": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "x": lambda a, b: a * b,
    "times": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else float("nan"),
    "divided by": lambda a, b: a / b if b else float("nan"),
}
_SUM = re.compile(
    r"(?:what(?:'s|\u2019s| is)|calculate|compute|how much is)?\s*(-?\d{1,12}(?:\.\d{1,6})?)\s*"
    rf"({'|'.join(map(re.escape, _OPERATIONS))})\s*(-?\d{{1,12}}(?:\.\d{{1,6}})?)\s*[?=.]*\s*",
    re.IGNORECASE,
)


def _computed(talk: Conversation) -> str:
    found = _SUM.fullmatch(talk.question.strip())
    if not found:
        return ""
    left, operation, right = found.groups()
    value = _OPERATIONS[operation.casefold()](float(left), float(right))
    if value != value:  # not a number: the division by zero above
        return f"{left} cannot be divided by zero."
    return f"{left} {operation} {right} is {value:.15g}."


def _stretched(answer: str, question: str) -> str:
    """The answer at the length that was asked for, so that long streams can be tried."""
    found = re.search(r"\b(\d{1,6}) (?:words|tokens)\b", question)
    if not found:
        return answer
    wanted = min(int(found.group(1)), MAX_LENGTH_ASKED)
    said = answer.split(" ")
    return " ".join((said * (wanted // len(said) + 1))[:wanted]) or answer


def key_words(question: str, limit: int = 6) -> list[str]:
    """The words of the question that say something, as written, at most ``limit``."""
    return [word for word in words(question) if not is_stop_word(word)][:limit]
