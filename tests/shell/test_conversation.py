"""Turns kept, trimmed, saved and resumed."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat import (
    AssistantMessage,
    ChatResponse,
    Citation,
    ImageContent,
    ImageUrl,
    Source,
    SystemMessage,
    TextContent,
    TokenCounts,
    ToolCall,
    ToolCallFunction,
    ToolMessage,
    Usage,
    UserMessage,
)
from streamchat.conversation import Conversation, _LastTokens, last_tokens, last_turns
from streamchat.protocol import ChatRequest
from tests.protocol.helpers import SHARED, examples, needs_shared

SYSTEM = {"role": "system", "content": "Be brief."}
HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": [{"text": "Hello", "type": "text"}]}


def pickle_copy(talk: Conversation) -> Conversation:
    """A copy by way of pickle."""
    again: Conversation = pickle.loads(pickle.dumps(talk))
    return again


def sent(*messages: Any) -> list[dict[str, Any]]:
    """What a request makes of the messages."""
    return list(ChatRequest(model="m", messages=messages).messages)


# --- keeping -------------------------------------------------------------------------------------


def test_a_conversation_grows_turn_by_turn() -> None:
    """System, user, answer: in the wire's shape, in order, ready to be sent."""
    talk = Conversation(system="Be brief.")
    talk.user("Hi")
    talk.add(ChatResponse(message=AssistantMessage([TextContent("Hello")])))
    assert talk.messages == [SYSTEM, HI, HELLO]
    assert list(talk) == [SYSTEM, HI, HELLO]
    assert sent(*talk.messages) == talk.messages
    assert len(talk) == 3


ANSWER = AssistantMessage(
    [TextContent("18 °C 🚢")],
    "I look.",
    [ToolCall("c1", ToolCallFunction("weather", "{}"))],
    [Citation(0, 2, "18", type="TEXT_CONTENT")],
)


@pytest.mark.parametrize(
    "message",
    [
        SystemMessage("s"),
        UserMessage("u"),
        UserMessage([TextContent("look"), ImageContent(ImageUrl("data:image/png;base64,AA"))]),
        ANSWER,
        AssistantMessage(),
        ChatResponse("i", ANSWER, "COMPLETE"),
        ToolMessage("c1", "18"),
        {"role": "assistant", "content": None, "tool_plan": "p", "new": [1, {"x": None}]},
        {"role": "user", "content": ({"type": "text", "text": "a tuple"},)},
    ],
    ids=lambda message: type(message).__name__,
)
def test_any_message_is_taken_as_a_request_takes_it(message: Any) -> None:
    """Objects, answers and dicts, at the beginning, in the middle and in place of all."""
    talk = Conversation()
    talk.add(HI, message)
    assert sent(HI, message) == talk.messages
    assert Conversation([HI, message]) == talk
    talk.replace(iter([message]))
    assert sent(message) == talk.messages


def test_the_user_says_text_or_parts() -> None:
    """A list of text and image parts, objects or dicts, is one message."""
    talk = Conversation()
    talk.user([TextContent("a"), {"type": "text", "text": "b"}])
    parts = [{"text": "a", "type": "text"}, {"type": "text", "text": "b"}]
    assert [{"role": "user", "content": parts}] == talk.messages


def test_what_goes_in_and_comes_out_is_copied() -> None:
    """Nobody changes a conversation but its own methods."""
    part = {"type": "text", "text": "a"}
    given_message = {"role": "user", "content": [part]}
    talk = Conversation([given_message])
    before = talk.to_json()
    part["text"] = "changed"
    for message in (*talk.messages, *talk):
        message["content"][0]["text"] = "changed"
        message["role"] = "tool"
    talk.messages.append({})
    talk.trim(lambda messages: [messages[0], *messages[1:]])
    assert before == talk.to_json()


def test_an_empty_conversation_is_allowed_and_is_not_sent() -> None:
    """It has no messages; the request that it would make says so."""
    assert (len(Conversation()), Conversation().messages) == (0, [])
    with pytest.raises(ValueError, match="nothing to ask"):
        ChatRequest(model="m", messages=Conversation().messages)


WRONG: list[tuple[type[Exception], str, Any]] = [
    (TypeError, r"messages\[1\] must be a dict, a message class or a ChatResponse, not int", 5),
    (TypeError, r"messages\[1\] must be .* not str", "Hi"),
    (ValueError, r"messages\[1\]\['role'\] must be one of system, user, assistant, tool", {}),
    (ValueError, r"messages\[1\] has the role 'user' and must have 'content'", {"role": "user"}),
    (ValueError, r"messages\[1\] .* must have 'tool_call_id'", {"role": "tool", "content": ""}),
    (ValueError, r"messages\[1\] looks like a whole response", {"message": HELLO}),
    (TypeError, r"messages\[1\]\['content'\] must be a str or a list", {**HI, "content": 5}),
    (TypeError, r"messages\[1\]\.extra is of type object", {**HI, "extra": object()}),
    (ValueError, r"messages\[1\]\.content holds a lone surrogate", {**HI, "content": "\ud83d"}),
]


@pytest.mark.parametrize(("error", "words", "wrong"), WRONG)
def test_what_is_no_message_is_named_by_its_place(
    error: type[Exception], words: str, wrong: Any
) -> None:
    """The position in the conversation; and nothing was changed by the attempt."""
    talk = Conversation([HI])
    attempts: list[Callable[[], object]] = [
        lambda: talk.add(wrong),
        lambda: talk.replace([HI, wrong]),
        lambda: talk.trim(lambda messages: [*messages, wrong]),
        lambda: Conversation([HI, wrong]),
    ]
    for attempt in attempts:
        with pytest.raises(error, match=words):
            attempt()
    with pytest.raises(error):
        talk.add(HELLO, wrong)
    assert talk.messages == [HI]


@pytest.mark.parametrize(
    ("error", "wrong"),
    [(ValueError, ""), (ValueError, []), (TypeError, 5), (TypeError, {"type": "text"})],
)
def test_the_user_has_to_say_something(error: type[Exception], wrong: Any) -> None:
    """Empty content, which the server refuses, and what is no content at all."""
    talk = Conversation()
    with pytest.raises(error, match="content"):
        talk.user(wrong)
    assert len(talk) == 0


@pytest.mark.parametrize("wrong", ["Hi", HI, None, 5])
def test_several_messages_are_a_list(wrong: Any) -> None:
    """A bare text or a bare message is refused, not read letter by letter or key by key."""
    for attempt in (Conversation, Conversation().replace):
        with pytest.raises(TypeError, match="messages must be a list of messages, not "):
            attempt(wrong)
    with pytest.raises(TypeError, match="what the rule returned must be a list of messages, not "):
        Conversation().trim(lambda messages: wrong)


def test_the_repr_tells_sizes_only() -> None:
    """What people say does not get into a log by way of a traceback."""
    talk = Conversation(system="secret")
    talk.user("secret")
    assert repr(talk) == "<Conversation messages=2 user=1>"


@pytest.mark.parametrize("branch", [Conversation.copy, copy.copy, copy.deepcopy])
def test_a_branch_goes_its_own_way(branch: Callable[[Conversation], Conversation]) -> None:
    """Equal at first; what is added to one of the two is not in the other."""
    talk = Conversation([HI])
    other = branch(talk)
    assert talk == other
    other.add(HELLO)
    talk.user("again")
    assert other.messages == [HI, HELLO]
    assert talk.messages == [HI, {"role": "user", "content": "again"}]


def test_a_subclass_stays_what_it_is() -> None:
    """Branching and loading give the class that was asked."""

    class Talk(Conversation):
        pass

    assert type(Talk([HI]).copy()) is Talk
    assert type(Talk.from_json("[]")) is Talk


# --- JSON ----------------------------------------------------------------------------------------

floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | floats | st.text(max_size=5)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
contents = st.text(max_size=9) | st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=9)), max_size=2
)
anything = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": contents},
    optional={"extra": json_values, "citations": st.lists(json_values, max_size=2)},
).map(lambda message: {**message, **({"tool_call_id": "c"} if message["role"] == "tool" else {})})


@given(st.lists(anything, max_size=4))
@examples(200)
def test_json_keeps_everything(messages: list[dict[str, Any]]) -> None:
    """There and back: the same messages, keys in the same order, as text and as bytes."""
    talk = Conversation(messages)
    text = talk.to_json()
    assert json.loads(text) == messages == talk.messages
    for again in (Conversation.from_json(text), Conversation.from_json(text.encode())):
        assert talk == again
        assert text == again.to_json()
    assert pickle.loads(pickle.dumps(talk)) == talk


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("not JSON: empty", ""),
        ("not JSON: .* at character", '[{"role": "user", "content": "secret}]'),
        ("not JSON|not usable JSON", '[{"role": "user", "content": NaN}]'),
        ("not usable JSON: nested too deeply", "[" * 100_000),
        ("a conversation is a JSON array of messages, not dict", '{"messages": []}'),
        ("a conversation is a JSON array of messages, not str", '"secret"'),
        ("a conversation is a JSON array of messages, not NoneType", "null"),
        (r"messages\[1\] must be a dict", '[{"role": "user", "content": "secret"}, 5]'),
        (r"messages\[0\]\['role'\] must be one of", '[{"content": "secret"}]'),
        (r"messages\[0\]\['content'\] must be a str", '[{"role": "user", "content": 5}]'),
        (r"messages\[0\].content holds a lone", r'[{"role": "user", "content": "secret\ud83d"}]'),
    ],
)
def test_bad_json_is_one_kind_of_error_that_names_the_place(words: str, text: str) -> None:
    """A ``ValueError``, which does not quote what people said to each other."""
    with pytest.raises(ValueError, match=words) as caught:
        Conversation.from_json(text)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def recorded_histories() -> list[list[dict[str, Any]]]:
    """The ``messages`` of every recorded request that has some."""
    found: list[list[dict[str, Any]]] = []
    for path in sorted(Path(SHARED / "recordings").glob("*/*.json")):
        request = json.loads(path.read_text(encoding="utf-8")).get("request")
        messages = request.get("messages") if isinstance(request, dict) else None
        # A few requests that were refused had a dict as content.
        if messages and not any(isinstance(one.get("content"), dict) for one in messages):
            found.append(messages)
    return found


@needs_shared
def test_recorded_histories_survive() -> None:
    """What others really sent: kept, saved, resumed and trimmed without a change."""
    histories = recorded_histories()
    assert len(histories) > 50
    for history in histories:
        talk = Conversation(history)
        assert history == talk.messages
        assert talk == Conversation.from_json(talk.to_json())
        talk.trim(last_turns(len(history)))
        assert history == talk.messages


# --- trimming ------------------------------------------------------------------------------------

SHAPES = {"s": "system", "u": "user", "a": "assistant"}


def conversation(sketch: str) -> list[dict[str, Any]]:
    """``u a u c1,2 t1 t2 a``: roles, calls with their ids, results with theirs; numbered."""
    messages: list[dict[str, Any]] = []
    for number, word in enumerate(sketch.split()):
        message: dict[str, Any] = {"content": str(number)}
        if word[0] == "c":
            ids = word[1:].split(",")
            message |= {"role": "assistant", "tool_calls": [{"id": one} for one in ids]}
        elif word[0] == "t":
            message |= {"role": "tool", "tool_call_id": word[1:]}
        else:
            message |= {"role": SHAPES[word]}
        messages.append(message)
    return messages


def kept(sketch: str, count: int) -> str:
    """What the rule keeps, in the same words."""
    talk = Conversation(conversation(sketch))
    talk.trim(last_turns(count))
    words = sketch.split()
    return " ".join(words[int(message["content"])] for message in talk)


@pytest.mark.parametrize(
    ("sketch", "count", "expected"),
    [
        ("", 1, ""),
        ("s", 0, "s"),
        ("s u a u a", 0, "s"),
        ("s u a u a", 1, "s u a"),
        ("s u a u a", 2, "s u a u a"),
        ("s u a u a", 9, "s u a u a"),
        ("s u a u", 1, "s u"),
        ("a u a", 1, "u a"),
        ("a u a", 2, "a u a"),
        ("a a", 1, "a a"),
        ("u u a", 1, "u a"),
        ("s u a s u a", 1, "s s u a"),
        ("u a u c1,2 t1 t2 a", 1, "u c1,2 t1 t2 a"),
        ("u a u c1 t1 c2 t2 a u a", 2, "u c1 t1 c2 t2 a u a"),
        ("u a u c1,2 t1 t2", 1, "u c1,2 t1 t2"),
        # A user's message between a call and its result belongs to the turn of the call.
        ("u a u c1 u t1 a", 1, "u c1 u t1 a"),
        ("u a u c1,2 t1 u t2 a u a", 2, "u c1,2 t1 u t2 a u a"),
        # A call that was never answered holds nothing up; nor does an id that comes again.
        ("u c1 u a", 1, "u a"),
        ("u c1 t1 a u c1 t1 a", 1, "u c1 t1 a"),
        ("u c1 u c1 t1 a", 1, "u c1 t1 a"),
        # A result that nobody asked for is the server's to refuse.
        ("u a t9 u a", 1, "u a"),
    ],
)
def test_the_last_turns_are_kept_whole(sketch: str, count: int, expected: str) -> None:
    """From a user's message on, with all that answers it; system messages stay."""
    assert expected == kept(sketch, count)


words = st.sampled_from(["s", "u", "a", "c1", "c2", "c1,2", "t1", "t2"])


@given(st.lists(words, max_size=14).map(" ".join), st.integers(0, 6))
@examples(400)
def test_no_result_is_separated_from_its_call(sketch: str, count: int) -> None:
    """A call is kept if and only if its results are; system messages and order always are."""
    messages = conversation(sketch)
    left = list(last_turns(count)(messages))
    there = {message["content"] for message in left}
    assert left == [message for message in messages if message["content"] in there]
    caller: dict[str, str] = {}
    for message in messages:
        if message["role"] == "tool" and message["tool_call_id"] in caller:
            assert (message["content"] in there) == (caller[message["tool_call_id"]] in there)
        caller |= {call["id"]: message["content"] for call in message.get("tool_calls", ())}
        assert message["role"] != "system" or message["content"] in there
    users = sum(message["role"] == "user" for message in messages)
    assert sum(message["role"] == "user" for message in left) >= min(count, users)


@pytest.mark.parametrize(
    "odd",
    [
        {"role": "assistant", "tool_calls": 5},
        {"role": "assistant", "tool_calls": [5, {}, {"id": None}, {"id": []}]},
        {"role": "tool", "tool_call_id": {"not": "hashable"}, "content": "x"},
        {"role": "tool", "tool_call_id": None, "content": "x"},
    ],
)
def test_odd_messages_do_not_stop_the_rule(odd: dict[str, Any]) -> None:
    """What only the server can judge is trimmed like anything else."""
    talk = Conversation([HI, odd, HI, odd, HELLO])
    talk.trim(last_turns(1))
    assert len(talk) == 3


@pytest.mark.parametrize(
    ("error", "wrong"), [(ValueError, -1), (TypeError, 1.0), (TypeError, "1"), (TypeError, True)]
)
def test_a_wrong_count_is_refused_at_once(error: type[Exception], wrong: Any) -> None:
    """Not only when the rule is used."""
    with pytest.raises(error, match="count must be "):
        last_turns(wrong)


def test_a_rule_is_any_function_and_may_put_a_summary_in() -> None:
    """It gets a list of its own and returns messages of any form."""
    talk = Conversation([SYSTEM, HI, HELLO, HI])

    def summarise(messages: list[dict[str, Any]]) -> list[Any]:
        last = messages.pop()
        return [messages[0], AssistantMessage([TextContent("summary")]), last]

    talk.trim(summarise)
    summary = {"role": "assistant", "content": [{"text": "summary", "type": "text"}]}
    assert [SYSTEM, summary, HI] == talk.messages
    talk.trim(lambda messages: ())
    assert talk.messages == []


def test_a_rule_that_fails_changes_nothing() -> None:
    """Its exception passes."""
    talk = Conversation([HI])
    with pytest.raises(ZeroDivisionError):
        talk.trim(lambda messages: 1 // 0)  # type: ignore[arg-type,return-value]  # it does not return
    assert talk.messages == [HI]


# --- trimming by tokens --------------------------------------------------------------------------


def counted_by_server(message: dict[str, Any]) -> int:
    """The tokens of a message, by a made-up server that has a rule of its own."""
    return 3 + 7 * len(str(message["content"]))


def answer_to(messages: list[dict[str, Any]], text: str, overhead: int = 0) -> ChatResponse:
    """The made-up server's answer, with what it counted."""
    message = AssistantMessage([TextContent(text)])
    read = overhead + sum(counted_by_server(each) for each in messages)
    usage = Usage(tokens=TokenCounts(read, counted_by_server(message.to_dict())))
    return ChatResponse("i", message, "COMPLETE", usage)


def trimmed(talk: Conversation, count: int) -> list[dict[str, Any]]:
    """The messages that are kept, of a copy."""
    branch = talk.copy()
    branch.trim(last_tokens(count))
    return branch.messages


def test_tokens_are_those_that_the_server_counted() -> None:
    """One message between two answers: its count is exact, and so is where the cut is."""
    talk = Conversation()
    for number in range(6):
        talk.user("x" * (number + 1))
        talk.add(answer_to(talk.messages, "y" * (10 - number)))
    messages = talk.messages
    for turns in range(1, 7):
        newest = messages[-2 * turns :]
        fits = sum(counted_by_server(message) for message in newest)
        assert newest == trimmed(talk, fits)
        if turns > 1:
            assert newest[2:] == trimmed(talk, fits - 1)


@pytest.mark.parametrize("branch", [Conversation.copy, copy.deepcopy, pickle_copy])
def test_counts_survive_copies_and_trimming(branch: Callable[[Conversation], Conversation]) -> None:
    """Counts stay with their messages, through any rule, and are no part of equality."""
    talk = Conversation(system="s")
    for number in range(4):
        talk.user("x" * (number + 1))
        talk.add(answer_to(talk.messages, "y"))
    other = branch(talk)
    other.trim(last_turns(3))
    other.trim(lambda messages: [dict(message) for message in messages])
    other.replace(other.messages)
    system, *newest = other.messages
    fits = sum(counted_by_server(message) for message in newest[-4:])
    # The first answer's input, of the system message and the first question, was shared by size.
    for room in range(1, 60):
        assert trimmed(other, fits + room) == trimmed(talk, fits + room)
    assert trimmed(other, 1) == [system, *newest[-2:]]
    assert Conversation(talk.messages) == talk


def test_several_messages_between_two_answers_share_their_count() -> None:
    """By size; together they have exactly what the server counted."""
    talk = Conversation()
    talk.user("Weather?")
    talk.add(answer_to(talk.messages, "call"))
    results = [{"role": "tool", "tool_call_id": "c", "content": "x" * size} for size in (1, 50)]
    talk.add(*results)
    talk.user("And?")
    talk.add(answer_to(talk.messages, "done"))
    everything = sum(counted_by_server(message) for message in talk.messages)
    assert talk.messages == trimmed(talk, everything)
    assert len(trimmed(talk, everything - 1)) == 2


def test_the_servers_own_prompt_counts_with_the_first_messages() -> None:
    """The sum is what the server counted, whatever it added."""
    talk = Conversation()
    for _ in range(3):
        talk.user("x")
        talk.add(answer_to(talk.messages, "y", overhead=1000))
    one_turn = sum(counted_by_server(message) for message in talk.messages[-2:])
    assert len(trimmed(talk, 3 * one_turn + 1000)) == 6
    assert len(trimmed(talk, 3 * one_turn + 999)) == 4


def test_a_history_without_counts_learns_them_with_the_next_answer() -> None:
    """JSON holds the messages alone: estimates until the server has counted them."""
    talk = Conversation([HI, HELLO] * 3)
    talk = Conversation.from_json(talk.to_json())
    assert talk.messages == trimmed(talk, len(talk.to_json()))
    talk.user("x")
    talk.add(answer_to(talk.messages, "y", overhead=100_000))
    assert len(trimmed(talk, 50_000)) < len(talk)
    assert len(trimmed(talk, 100_000 + len(talk.to_json()) * 9)) == len(talk)


@pytest.mark.parametrize(
    "counts",
    [
        TokenCounts(),
        TokenCounts(0, 0),
        TokenCounts(-5, -5),
        TokenCounts(float("nan"), float("nan")),
        TokenCounts(float("inf"), float("inf")),
        TokenCounts(10**400, 10**400),
        TokenCounts(1, None),
    ],
)
def test_counts_that_cannot_be_are_not_believed(counts: TokenCounts) -> None:
    """Too few for what was counted before, negative, infinite, or none: estimates stay."""
    talk = Conversation()
    talk.user("x")
    talk.add(answer_to(talk.messages, "y"))
    talk.user("z" * 400)
    talk.add(
        ChatResponse("i", AssistantMessage([TextContent("y")]), "COMPLETE", Usage(tokens=counts))
    )
    assert len(trimmed(talk, 300)) == 2
    assert len(trimmed(talk, 400)) == 4


@pytest.mark.parametrize(
    ("sketch", "count", "expected"),
    [
        ("", 1, ""),
        ("s", 1, "s"),
        ("s u a u a", 1, "s u a"),
        ("s u a u a", 3, "s u a"),
        ("s u a u a", 4, "s u a"),
        ("s u a u a", 5, "s u a u a"),
        ("u a s u a", 4, "s u a"),
        ("u a s u a", 5, "u a s u a"),
        ("u a u c1,2 t1 t2 a", 6, "u c1,2 t1 t2 a"),
        ("u a u c1,2 t1 t2 a u", 2, "u"),
        ("u a u c1 u t1 a", 2, "u c1 u t1 a"),
        ("a u a", 2, "u a"),
        ("a u a", 3, "a u a"),
        ("a a", 1, "a a"),
    ],
)
def test_whole_turns_are_kept_as_far_as_they_fit(sketch: str, count: int, expected: str) -> None:
    """System messages count and stay; the newest turn stays whether it fits or not."""
    messages = conversation(sketch)
    names = sketch.split()
    kept = _LastTokens(count).kept(messages, [1] * len(messages))
    assert expected == " ".join(names[at] for at in kept)


@given(st.lists(st.tuples(words, st.integers(0, 9)), max_size=14), st.integers(1, 40))
@examples(400)
def test_the_longest_suffix_of_turns_that_fits_is_kept(
    sizes: list[tuple[str, int]], budget: int
) -> None:
    """All system messages and the newest turns; one turn more would not fit."""
    messages = conversation(" ".join(word for word, _ in sizes))
    size = {
        message["content"]: tokens for message, (_, tokens) in zip(messages, sizes, strict=True)
    }

    def tokens_of(some: list[dict[str, Any]]) -> int:
        return sum(size[message["content"]] for message in some)

    kept = _LastTokens(budget).kept(messages, [tokens for _, tokens in sizes])
    left = [messages[at] for at in kept]
    by_turns = [last_turns(count)(messages) for count in range(1, len(messages) + 2)]
    assert left in by_turns
    if tokens_of(left) > budget:
        assert left == by_turns[0]
    longer = [some for some in by_turns if len(some) > len(left)]
    assert not longer or tokens_of(longer[0]) > budget


@given(st.lists(words, max_size=14).map(" ".join), st.integers(1, 200))
@examples(200)
def test_without_counts_the_rule_is_a_plain_function(sketch: str, budget: int) -> None:
    """Called with messages alone it estimates, as a conversation without counts does."""
    talk = Conversation(conversation(sketch))
    assert trimmed(talk, budget) == list(last_tokens(budget)(talk.messages))


@pytest.mark.parametrize(
    ("error", "wrong"),
    [(ValueError, 0), (ValueError, -1), (TypeError, 1.0), (TypeError, "1"), (TypeError, True)],
)
def test_a_wrong_number_of_tokens_is_refused_at_once(error: type[Exception], wrong: Any) -> None:
    """Not only when the rule is used; 0 tokens hold no turn, and the newest is always kept."""
    with pytest.raises(error, match="count must be "):
        last_tokens(wrong)


# --- notebooks -----------------------------------------------------------------------------------


def test_a_notebook_shows_roles_texts_results_and_sources() -> None:
    """One list of sources for all answers; no image is loaded, and no HTML gets through."""
    talk = Conversation(system="Be <b>brief</b>.")
    talk.user([TextContent("Look"), ImageContent(ImageUrl("https://example.com/x.png"))])
    source = Source("document", "d", {"id": "d", "title": "Title"})
    for text in ("One.", "Two."):
        citation = Citation(0, 3, text[:3], [source], "TEXT_CONTENT")
        call = ToolCall("c1", ToolCallFunction("f", "{}"))
        talk.add(AssistantMessage([TextContent(text)], "", [call], [citation]))
        talk.add(ToolMessage("c1", "```"), {"role": "tool", "tool_call_id": "c1", "content": []})
    assert talk._repr_markdown_() == "\n\n".join(
        [
            *("**System**", "Be &lt;b>brief&lt;/b>."),
            *("**User**", "Look", "*image*"),
            *("**Assistant**", "One[^1].", "```text\nf({})\n```"),
            *("**Tool** c1", "````text\n```\n````", "**Tool** c1", "```text\n[]\n```"),
            *("**Assistant**", "Two[^1].", "```text\nf({})\n```"),
            *("**Tool** c1", "````text\n```\n````", "**Tool** c1", "```text\n[]\n```"),
            "[^1]: Source **d**: Title",
        ]
    )


def test_a_notebook_shows_a_content_of_one_part() -> None:
    """It need not be in a list; a part without a kind has nothing to show."""
    part = {"type": "text", "text": "Hi"}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    talk = Conversation(
        [{"role": role, "content": part} for role in ("system", "user", "assistant")]
    )
    talk.add({"role": "user", "content": image}, {"role": "user", "content": [{}, 5, part]})
    assert talk._repr_markdown_() == "\n\n".join(
        [
            *("**System**", "Hi", "**User**", "Hi", "**Assistant**", "Hi"),
            *("**User**", "*image*", "**User**", "Hi"),
        ]
    )


@pytest.mark.parametrize(
    ("left_out", "first"),
    [
        (0, "**System**"),
        (1, "*1 earlier turn is not shown*"),
        (2, "*2 earlier turns are not shown*"),
    ],
)
def test_a_notebook_shows_the_last_turns(left_out: int, first: str) -> None:
    """A long conversation does not fill the page; it says what is not there."""
    talk = Conversation(system="s")
    for number in range(50 + left_out):
        talk.user(f"question {number}")
        talk.add(HELLO)
    text = talk._repr_markdown_()
    assert text.startswith(first)
    assert text.count("**User**") == 50
    assert ("question 0" in text) == (left_out == 0)
    assert Conversation()._repr_markdown_() == "*no messages*"


@pytest.mark.parametrize(
    "odd",
    [
        {"role": "assistant", "content": "<b>"},
        {"role": "assistant", "content": None},
        {
            "role": "assistant",
            "content": [{"type": "new", "x": 1}, {"type": "text", "text": "<b>"}],
        },
        {"role": "assistant", "citations": [5], "content": "x"},
        {"role": "assistant", "tool_calls": 5},
        {"role": "tool", "tool_call_id": None, "content": "x"},
        {"role": "user", "content": [5, {"type": None}, {"text": 5}]},
    ],
)
def test_odd_messages_are_shown_as_far_as_they_are_known(odd: dict[str, Any]) -> None:
    """What only the server can judge is kept, so it is shown too."""
    talk = Conversation([odd])
    assert "<b>" not in talk._repr_markdown_()
    assert talk._repr_markdown_().startswith(f"**{odd['role'].capitalize()}**")
