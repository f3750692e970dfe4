"""A small deterministic model that uses its whole input; imports ``streamchat.protocol`` only.

Pure: no clock, no randomness, no network. The same request gives the same events, ids included;
another ``seed`` gives other ids and another wording. It decides as Chat v2 does: tool results are
answered first, then tools are called, then come a JSON format, documents, and plain talk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streamchat.local.conversation import Conversation, digest, schema_in_texts, text_of
from streamchat.local.deliver import Draft, PromptSize, deliver
from streamchat.local.filler import fill
from streamchat.local.grounding import (
    answer_from_documents,
    answer_from_results,
    plan_from_results,
)
from streamchat.local.hints import Hints
from streamchat.local.knowledge import (
    is_small_talk,
    is_sum,
    key_words,
    plain_answer,
    subject_of,
)
from streamchat.local.schema import Work
from streamchat.local.shapes import characters, list_or_empty, object_or_empty
from streamchat.local.tooling import (
    MAX_PARALLEL,
    Offer,
    calls_for,
    choose,
    is_filled,
    offers_in,
    rank,
)
from streamchat.local.words import sentences, split_name, stems
from streamchat.protocol.events import Event
from streamchat.protocol.messages import ToolCall
from streamchat.protocol.models import thinks_by_default

__all__ = ["answer"]

IMAGE_TOKENS = 259
"""Tokens of one image, as in a recorded vision request."""

_QUOTE_OPENINGS = ("", "According to the documents: ", "Here is what the documents say. ")
MAX_TOLD = 8
"""Tool results of which the next call's arguments are taken."""
TOLD_LIMIT = 2_000
"""Code points of them."""
QUESTIONS_LIMIT = 10_000
"""Code points in which several questions are looked for."""
_QUESTION_MARKS = ("?", "\uff1f")
"""The second is the full-width one of Chinese and Japanese."""
_RESULT_OPENINGS = ("", "Here is what I found. ", "According to the tools: ")


def answer(request: Mapping[str, Any]) -> list[Event]:
    """The events of the answer, from ``message-start`` to ``message-end``.

    Args:
        request: a Chat v2 body that :func:`streamchat.local.checks.check` let pass.
            ``stream`` makes no difference; ``temperature``, ``k``, ``p``, the penalties,
            ``priority``, ``safety_mode`` and ``strict_tools`` have no effect on this model.

    Raises:
        RefusalError: a JSON Schema asks for too much, or has no finite value.

    Returns:
        Events as Chat v2 sends them, about one token a delta. End events are not completed: that is
        the accumulator's work.
    """
    talk = Conversation.read(request)
    identity = digest(request)
    seed = request.get("seed")
    draft = _draft(request, talk, identity, seed if isinstance(seed, int) else 0)
    if _thinks(request):
        draft.thinking = _thoughts(talk, draft)
        draft.tool_plan = ""
    return deliver(draft, request, identity, _prompt_size(request, talk))


def _draft(request: Mapping[str, Any], talk: Conversation, identity: bytes, seed: int) -> Draft:
    work = Work()
    offers = offers_in(request, work)
    required = str(request.get("tool_choice")).upper() == "REQUIRED"
    chosen = choose(offers, talk.question)
    if talk.results:
        following = [offer for offer in chosen if offer.name not in talk.called]
        if required and not following:
            ranked = rank(offers, talk.question)
            following = [offer for offer in ranked if offer.name not in talk.called] or ranked
        if following and (required or _in_steps(talk.question)):
            return _next_step(following[0], talk, identity, work)
        quoting = answer_from_results(talk, _RESULT_OPENINGS, seed)
        return Draft(text=quoting.text, citations=quoting.citations)
    if not chosen and (required or _is_extraction(offers, talk.question, work)):
        chosen = rank(offers, talk.question)[:1]
    if chosen:
        calls = _first_calls(offers, chosen, talk.question, identity, work)
        return Draft(tool_plan=_plan(calls), calls=calls)
    style = object_or_empty(request.get("response_format"))
    is_json = str(style.get("type")).lower() == "json_object"
    schema = object_or_empty(style.get("json_schema") or style.get("schema"))
    question = talk.question
    if not schema:
        schema, question = schema_in_texts(talk)
    if schema or is_json:
        return Draft(text=_json_answer(schema, question, work))
    documents = list_or_empty(request.get("documents"))
    if documents:
        quoting = answer_from_documents(documents, talk, _QUOTE_OPENINGS, seed)
        return Draft(text=quoting.text, citations=quoting.citations)
    return Draft(text=plain_answer(talk, seed))


# --- tools ---------------------------------------------------------------------------------------


def _in_steps(question: str) -> bool:
    """Whether one thing is asked for and *then* another: one tool a turn, no parallel calls."""
    return " then " in f" {question.casefold()} "


def _is_extraction(offers: list[Offer], question: str, work: Work) -> bool:
    """Whether the only tool there is takes what the question says: it is called unasked."""
    if len(offers) != 1 or is_small_talk(question):
        return False
    return is_filled(offers[0], question, work, arithmetic=is_sum(question))


def _first_calls(
    offers: list[Offer], chosen: list[Offer], question: str, identity: bytes, work: Work
) -> list[ToolCall]:
    """The calls of the first answer; of several questions each has its own."""
    if _in_steps(question):
        return calls_for(_earliest(chosen, question), question, identity, work)
    asked = [
        part for part in sentences(question[:QUESTIONS_LIMIT]) if part.endswith(_QUESTION_MARKS)
    ]
    fitting = [(choose(offers, part), part) for part in asked[:MAX_PARALLEL]]
    if len(fitting) > 1 and all(found for found, _ in fitting):
        calls: list[ToolCall] = []
        for found, part in fitting:
            for call in calls_for(found, part, identity, work, before=len(calls)):
                if all(call.function != other.function for other in calls):
                    calls.append(call)
        return calls
    return calls_for(chosen, question, identity, work)


def _earliest(offers: list[Offer], question: str) -> list[Offer]:
    """The tool that the question mentions first."""
    before = stems(question.casefold().partition(" then ")[0])
    return sorted(offers, key=lambda offer: not (offer.name_words & before))[:1]


def _next_step(offer: Offer, talk: Conversation, identity: bytes, work: Work) -> Draft:
    """What was found so far, cited in the plan, and the next call."""
    told = "\n".join(text_of(result.get("content")) for result in talk.results[:MAX_TOLD])
    told = told[:TOLD_LIMIT].replace('"', " ")  # keys of JSON are not quoted texts
    calls = calls_for([offer], talk.question, identity, work, told=told)
    plan = plan_from_results(talk)
    plan.say(f" {_plan(calls)}")
    return Draft(tool_plan=plan.text, calls=calls, citations=plan.citations)


_VERB_LIST = """add book calculate check create fetch find get list look make query read search send
    set show update write"""
_VERBS = frozenset(_VERB_LIST.split())
"""First words of tool names that read on in a sentence: *to get weather*."""


def _plan(calls: list[ToolCall]) -> str:
    """``I will use the get_weather tool to get weather for Lima and Cusco.``"""
    steps: list[str] = []
    for name in dict.fromkeys(call.name for call in calls):
        values = [value for call in calls if call.name == name for value in call.parsed.values()]
        told = [value for value in values if isinstance(value, str) and len(value) <= 40]
        purpose = split_name(name).strip().lower()
        step = f"use the {name} tool"
        if purpose.split(" ")[0] in _VERBS:
            step += f" to {purpose}"
        steps.append(f"{step} for {_listed(told)}" if told else step)
    return f"I will {_listed(steps)}."


def _listed(items: list[str]) -> str:
    """``a, b and c``"""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


# --- JSON ----------------------------------------------------------------------------------------


def _json_answer(schema: Mapping[str, Any], question: str, work: Work) -> str:
    value: Any
    if schema:
        told = stems(split_name(json.dumps(schema, ensure_ascii=False, default=str)[:10_000]))
        value = fill(schema, Hints(question, told), everything=True, work=work)
    else:
        value = {"subject": subject_of(question), "words": key_words(question)}
    return json.dumps(value, indent=4, ensure_ascii=False)


# --- thinking ------------------------------------------------------------------------------------


def _thinks(request: Mapping[str, Any]) -> bool:
    """A reasoning model thinks unless told not to; others when told to."""
    thinking = request.get("thinking")
    if isinstance(thinking, Mapping):
        return str(object_or_empty(thinking).get("type", "enabled")).lower() != "disabled"
    return thinks_by_default(str(request.get("model")))


def _thoughts(talk: Conversation, draft: Draft) -> str:
    thoughts = f"The user asks about {subject_of(talk.question)}. "
    if draft.calls:
        named = " and ".join(dict.fromkeys(call.name for call in draft.calls))
        return thoughts + f"I need more information for that, so I will call {named}."
    if talk.results:
        return thoughts + "The tools have answered, so I can put the results together."
    if draft.citations:
        return thoughts + "The documents say something about that, so I will quote and cite them."
    return thoughts + "I can answer that directly, in a few sentences."


# --- usage ---------------------------------------------------------------------------------------


def _prompt_size(request: Mapping[str, Any], talk: Conversation) -> PromptSize:
    """About four characters of messages, documents and tools a token; images apart."""
    size = sum(characters(request.get(name)) for name in ("messages", "documents", "tools"))
    return PromptSize(text=max(1, size // 4), images=IMAGE_TOKENS * talk.images)
