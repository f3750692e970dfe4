"""Keywords that calls and settings do not take, and what to write instead; imports nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["wrong_option", "wrong_setting"]

_BOTH: Mapping[str, str] = {
    "request_options": (
        "pass its parts: timeout=Timeout(total=...), retry=Retry(attempts=...), headers={...} "
        "and extra_body={...}"
    ),
    "max_retries": "pass retry=Retry(attempts=N + 1): the first attempt counts too",
    "log_warning_experimental_features": "leave it out: nothing is logged about features",
    "thread_pool_executor": "leave it out: no threads are used",
}
_SETTINGS: Mapping[str, str] = {
    "httpx_client": "pass session=, an aiohttp.ClientSession, or proxy= and ssl=",
    "environment": "pass base_url=",
    "token": "pass api_key=",
    "auth_token": "pass api_key=",
    "follow_redirects": "leave it out: redirects are refused",
}
"""Settings of the official SDK's clients, and of those that look like it."""
_V1 = "it belongs to Chat v1, and this is Chat v2: "
_OPTIONS: Mapping[str, str] = {
    "raw_prompting": f"{_V1}extra_body={{'raw_prompting': ...}} sends it all the same",
    "tool_content": (
        "put it into messages: {'role': 'tool', 'tool_call_id': '...', 'content': ...}"
    ),
    "tool_results": f"{_V1}put tool messages into messages",
    "message": f"{_V1}pass messages='...' or a list of turns",
    "prompt": "pass messages='...' or a list of turns",
    "chat_history": f"{_V1}put the earlier turns into messages",
    "preamble": f"{_V1}put a system message first into messages",
    "citation_quality": f"{_V1}pass citation_options={{'mode': ...}}",
    "prompt_truncation": f"{_V1}leave it out",
    "connectors": f"{_V1}pass documents=",
    "force_single_step": f"{_V1}leave it out",
    "stream": "leave it out: every answer is streamed, and chat() waits for its end",
    "stop": "pass stop_sequences=; stop=Stop(...) is an option of fan_out()",
    "top_p": "pass p=",
    "top_k": "pass k=",
    "max_completion_tokens": "pass max_tokens=",
    "reasoning_effort": "pass thinking={'type': 'enabled', 'token_budget': ...}",
}
"""Options of Chat v1, of other vendors, and of examples."""
_ONLY_CLIENT = frozenset(
    {"api_key", "base_url", "client_name", "max_connections", "proxy", "query", "session", "ssl"}
)
_OF_METHODS: Mapping[str, str] = {
    **dict.fromkeys(("approve", "max_steps", "max_calls", "parallel"), "run_tools()"),
    **dict.fromkeys(("on_tool_error", "tool_timeout"), "run_tools()"),
    **dict.fromkeys(("concurrency", "ordered", "adaptive", "on_error"), "fan_out()"),
    "repair": "parse()",
    "into": "parse() and fan_out()",
}
"""Keywords that some methods alone take."""
_OF_CALLS = frozenset({"messages", "handlers", "data"})


def wrong_option(name: str, known: Collection[str]) -> TypeError:
    """The error for a keyword that ``chat`` and its relatives do not take.

    Args:
        name: the keyword.
        known: those that are taken.
    """
    hint = _BOTH.get(name) or _OPTIONS.get(name)
    if name in _OF_METHODS:
        hint = f"it is an option of {_OF_METHODS[name]}"
    elif name.startswith("on_"):
        hint = f"register a handler by @client.{name}, or in handlers=[...]"
    elif name in _ONLY_CLIENT or name in _SETTINGS:
        hint = f"it is a setting of Client(): {_SETTINGS.get(name) or f'pass {name}='} there"
    return _error(f"{name!r} is not an option of Chat v2", name, hint, {*known, *_OF_METHODS})


def wrong_setting(name: str, known: Collection[str], options: Collection[str]) -> TypeError:
    """The error for a keyword that ``Client`` does not take.

    Args:
        name: the keyword.
        known: those that are taken.
        options: keywords of ``chat`` and its relatives.
    """
    hint = _BOTH.get(name) or _SETTINGS.get(name)
    if name in _OF_CALLS or name in options or name in _OPTIONS:
        hint = "pass it to chat(), chat_stream() and the like"
        if name in _OPTIONS:
            hint += f"; there, {_OPTIONS[name]}"
    return _error(f"{name!r} is not a setting of Client()", name, hint, known)


def _error(words: str, name: str, hint: str | None, known: Collection[str]) -> TypeError:
    if hint is None:
        from difflib import get_close_matches  # for this mistake alone

        close = get_close_matches(name, sorted(known), n=1)
        return TypeError(f"{words}; did you mean {close[0]!r}?" if close else words)
    return TypeError(f"{words}; {hint}")
