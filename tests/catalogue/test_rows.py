"""Which test holds which row of faults.md section 3; ``tests/faults`` cuts and breaks at random besides."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

CONNECT = "catalogue/test_connect.py::"
HEADERS = "catalogue/test_headers.py::"
BODY = "catalogue/test_body.py::"
EVENTS = "catalogue/test_events.py::"
LIFE = "catalogue/test_lifecycle.py::"
WIRE = "wire/test_client.py::"
STREAM = "shell/test_stream.py::"
POLICY = "shell/test_policy.py::"
DISPATCHER = "shell/test_dispatcher.py::"
CODEC = "protocol/test_codec.py::"
ACCUMULATOR = "protocol/test_accumulator.py::"
SSE = "protocol/test_sse.py::"
REQUEST = "protocol/test_request.py::"

FATAL = (
    EVENTS + "test_a_bad_event_behind_good_ones",
    EVENTS + "test_a_bad_event_before_any_good_one",
)
ODD = EVENTS + "test_what_is_odd_but_no_fault"
CUT = BODY + "test_a_cut_answer_is_no_answer"
EMPTY = BODY + "test_a_body_without_events_is_tried_again"
NOT_FED = BODY + "test_what_is_no_event_does_not_feed_the_limit"
NOT_HTTP = HEADERS + "test_what_is_not_http"
HEADERS_END = HEADERS + "test_headers_that_never_end"
RETRY_AFTER = (
    HEADERS + "test_retry_after_from_a_real_response",
    POLICY + "test_retry_after_reads_every_form_and_ignores_nonsense",
)

ROWS: dict[str, tuple[str, ...]] = {
    # 3.1 connect
    "F01": (
        CONNECT + "test_a_name_that_does_not_resolve",
        CONNECT + "test_a_resolver_that_does_not_answer",
    ),
    "F02": (
        CONNECT + "test_a_refused_connection_is_tried_again",
        WIRE + "test_a_refused_connection_says_where",
    ),
    "F03": (
        CONNECT + "test_a_black_hole",
        CONNECT + "test_a_resolver_that_does_not_answer",
        CONNECT + "test_connecting_is_not_slowed_by_the_wall_clock",
    ),
    "F04": (
        CONNECT + "test_a_wrong_certificate_is_final",
        CONNECT + "test_a_context_of_the_callers_is_used",
        WIRE + "test_a_certificate_nobody_knows_is_refused_and_not_retried",
    ),
    "F05": (
        CONNECT + "test_tls_that_is_refused_says_tls",
        CONNECT + "test_a_missing_client_certificate_is_final",
        CONNECT + "test_a_missing_client_certificate_is_told_of_a_large_request",
    ),
    "F06": (
        CONNECT + "test_a_handshake_that_stalls",
        CONNECT + "test_a_plain_answer_to_a_handshake",
    ),
    "F07": (
        CONNECT + "test_plain_http_to_a_tls_port_hints_at_the_scheme",
        CONNECT + "test_plain_http_to_a_port_that_answers_with_an_alert",
        CONNECT + "test_a_plain_port_is_not_taken_for_tls",
    ),
    "F08": (
        CONNECT + "test_a_full_pool_is_a_queue",
        CONNECT + "test_waiting_for_the_pool_is_bounded",
    ),
    "F09": (CONNECT + "test_out_of_descriptors",),
    "F10": (
        CONNECT + "test_a_proxy_that_refuses_the_tunnel",
        CONNECT + "test_a_proxy_that_is_not_there",
        WIRE + "test_a_proxy_without_scheme_and_with_password_works_and_shows_nothing",
    ),
    "F11": (
        CONNECT + "test_netrc_is_never_read",
        WIRE + "test_no_proxy_is_asked_for_this_machine",
        WIRE + "test_a_proxy_of_the_environment_is_used_for_others",
    ),
    "F12": (
        CONNECT + "test_an_address_in_disguise_is_refused",
        CONNECT + "test_an_address_as_it_is_written_is_accepted",
        WIRE + "test_settings_that_cannot_work_are_refused_by_name",
    ),
    "F13": (
        WIRE + "test_a_forked_child_opens_connections_of_its_own",
        WIRE + "test_a_forked_child_that_closes_the_client_leaves_the_parent_alone",
    ),
    "F14": (
        CONNECT + "test_one_client_in_several_threads_at_once",
        CONNECT + "test_a_stream_of_another_loop_is_an_error",
        WIRE + "test_one_client_works_from_several_loops_in_turn",
    ),
    "F15": (
        CONNECT + "test_construction_needs_no_loop_and_opens_nothing",
        CONNECT + "test_closing_after_the_loop_has_ended",
        CONNECT + "test_the_end_of_the_interpreter_is_quiet",
        CONNECT + "test_ctrl_c_ends_a_stream_cleanly",
    ),
    # 3.2 request to response headers
    "F16": (
        CONNECT + "test_a_plain_port_is_not_taken_for_tls",
        HEADERS + "test_a_connection_that_ends_before_the_headers",
        HEADERS + "test_the_answer_after_a_lost_connection_is_whole",
    ),
    "F17": (
        HEADERS + "test_a_used_connection_that_ends_before_the_headers",
        WIRE + "test_a_stale_pooled_connection_costs_no_attempt",
    ),
    "F18": (HEADERS + "test_a_connection_that_ends_before_the_headers",),
    "F19": (HEADERS_END,),
    "F20": (HEADERS_END, WIRE + "test_a_silent_server_is_a_timeout"),
    "F21": (HEADERS_END, HEADERS + "test_provisional_answers_before_the_answer"),
    "F22": (HEADERS_END,),
    "F23": (HEADERS + "test_switching_protocols_is_no_answer",),
    "F24": (NOT_HTTP, WIRE + "test_garbage_instead_of_http_is_a_protocol_error"),
    "F25": (NOT_HTTP, HEADERS + "test_a_long_header_is_read_with_a_session_that_allows_it"),
    "F26": (NOT_HTTP,),
    "F27": (HEADERS + "test_old_forms_of_headers",),
    "F28": (
        HEADERS + "test_no_redirect_is_followed",
        WIRE + "test_a_redirect_is_refused_and_nothing_is_sent_there",
        WIRE + "test_a_broken_redirect_is_a_status_error",
    ),
    "F29": (
        HEADERS + "test_a_server_that_quotes_the_key",
        HEADERS + "test_a_key_quoted_by_an_ok_that_is_no_stream",
        WIRE + "test_a_wrong_key_is_an_authentication_error_with_a_hint",
    ),
    "F30": (
        HEADERS + "test_what_trying_again_cannot_mend",
        STREAM + "test_every_status_has_its_class_and_keeps_what_the_server_said",
    ),
    "F31": (
        HEADERS + "test_what_trying_again_may_mend",
        POLICY + "test_what_is_tried_again",
        POLICY + "test_how_long_to_wait",
    ),
    "F32": (*RETRY_AFTER, STREAM + "test_retry_after_is_honoured"),
    "F33": (*RETRY_AFTER, HEADERS + "test_a_long_retry_after_is_raised_at_once"),
    "F34": (
        HEADERS + "test_a_long_retry_after_is_raised_at_once",
        STREAM + "test_a_long_retry_after_is_raised_at_once",
    ),
    "F35": RETRY_AFTER,
    "F36": (
        HEADERS + "test_the_status_is_told_whatever_the_body",
        STREAM + "test_reading_an_error_body_is_limited_too",
    ),
    "F37": (
        HEADERS + "test_an_ok_of_another_kind",
        HEADERS + "test_a_key_quoted_by_an_ok_that_is_no_stream",
    ),
    "F38": (HEADERS + "test_an_ok_of_another_kind",),
    "F39": (
        HEADERS + "test_an_event_stream_under_any_success_is_an_answer",
        HEADERS + "test_a_success_without_content_is_not_an_answer",
        HEADERS + "test_no_content_with_content",
    ),
    "F40": (
        HEADERS + "test_codings_that_are_decoded",
        HEADERS + "test_codings_that_are_not_decoded",
        HEADERS + "test_text_under_a_name_that_is_not_a_coding_is_read",
        HEADERS + "test_a_coding_without_its_package_says_what_to_install",
        HEADERS + "test_an_error_in_a_coding_without_its_package_keeps_its_status",
        HEADERS + "test_a_session_of_the_callers_decodes_nothing_twice",
    ),
    # 3.3 body transport
    "F41": (CUT, EMPTY, WIRE + "test_a_cut_body_is_truncation_with_the_partial_answer"),
    "F42": (CUT, EMPTY, WIRE + "test_events_that_arrived_before_a_reset_reach_a_slow_consumer"),
    "F43": (CUT, EMPTY),
    "F44": (CUT, EMPTY),
    "F45": (BODY + "test_tls_that_ends_without_notice",),
    "F46": (CUT, WIRE + "test_a_clean_end_without_message_end_is_truncation"),
    "F47": (BODY + "test_an_answer_without_the_terminator_is_complete",),
    "F48": (BODY + "test_broken_framing_with_the_headers",),
    "F49": (
        BODY + "test_broken_framing_before_the_first_event",
        BODY + "test_broken_framing_behind_events",
        WIRE + "test_broken_chunk_framing_ends_the_stream_at_once",
    ),
    "F50": (NOT_FED,),
    "F51": (BODY + "test_trailers",),
    "F52": (BODY + "test_bytes_that_nobody_asked_for",),
    "F53": (BODY + "test_bytes_that_nobody_asked_for",),
    "F54": (
        NOT_FED,
        WIRE + "test_a_stalled_stream_is_an_idle_timeout",
        STREAM + "test_each_limit_ends_the_stream_on_time",
    ),
    "F55": (NOT_FED, STREAM + "test_every_early_end_is_an_error_with_the_partial_answer"),
    "F56": (NOT_FED, STREAM + "test_every_early_end_is_an_error_with_the_partial_answer"),
    "F57": (
        BODY + "test_a_slow_consumer_is_not_punished",
        STREAM + "test_a_slow_consumer_is_not_an_idle_server",
    ),
    "F58": (
        BODY + "test_there_is_no_total_limit_but_the_callers",
        STREAM + "test_no_limit_means_no_limit",
        STREAM + "test_total_is_not_slept_through",
    ),
    "F59": (BODY + "test_a_body_that_is_not_what_it_says",),
    "F60": (BODY + "test_a_cut_gzip_stream_in_correct_chunks",),
    "F61": (BODY + "test_a_gzip_bomb_is_bounded",),
    "F62": (BODY + "test_a_body_that_is_not_what_it_says",),
    "F63": (NOT_FED,),
    "F64": (
        BODY + "test_the_answer_does_not_wait_for_the_end_of_the_body",
        WIRE + "test_one_connection_serves_one_answer_after_the_other",
        WIRE + "test_a_server_that_keeps_talking_after_the_answer_is_cut_off",
    ),
    "F65": (
        BODY + "test_the_answer_does_not_wait_for_the_end_of_the_body",
        STREAM + "test_the_answer_is_handed_out_at_message_end",
    ),
    # 3.4 SSE and JSON
    "F66": (*FATAL, EVENTS + "test_the_limit_names_itself"),
    "F67": (*FATAL, EVENTS + "test_the_limit_names_itself", SSE + "test_memory_is_bounded"),
    "F68": (EVENTS + "test_a_long_stream_of_small_events_is_allowed",),
    "F69": (
        EVENTS + "test_cuts_anywhere",
        SSE + "test_any_bytes_give_what_the_reference_gives",
        SSE + "test_the_standard_holds_whatever_the_chunking",
    ),
    "F70": (EVENTS + "test_ill_formed_text_is_kept", CODEC + "test_ill_formed_utf8_is_replaced"),
    "F71": FATAL,
    "F72": (
        *FATAL,
        EVENTS + "test_a_decode_error_says_where_and_not_what",
        CODEC + "test_what_is_malformed_is_a_decode_error",
    ),
    "F73": (*FATAL, CODEC + "test_the_terminator_is_no_event"),
    "F74": (*FATAL, CODEC + "test_no_depth_of_nesting_is_a_crash"),
    "F75": (*FATAL, CODEC + "test_what_is_malformed_is_a_decode_error"),
    "F76": (
        EVENTS + "test_halves_of_an_emoji_in_two_deltas",
        ACCUMULATOR + "test_delivered_text_is_the_answer",
    ),
    "F77": (ODD, CODEC + "test_of_duplicate_keys_the_last_wins"),
    "F78": FATAL,
    "F79": (
        ODD,
        EVENTS + "test_an_unknown_event_is_delivered_as_it_is",
        CODEC + "test_an_unknown_event_is_delivered",
    ),
    "F80": (*FATAL, ODD, CODEC + "test_a_damaged_event_is_an_event_or_an_error_of_ours"),
    "F81": (ODD, CODEC + "test_the_json_type_decides"),
    "F82": (*FATAL, ACCUMULATOR + "test_a_contradiction_is_an_error_and_changes_nothing"),
    "F83": (
        FATAL[0],
        ODD,
        EVENTS + "test_interleaved_blocks_and_calls",
        ACCUMULATOR + "test_a_contradiction_is_an_error_and_changes_nothing",
    ),
    "F84": (
        EVENTS + "test_nothing_counts_after_message_end",
        ACCUMULATOR + "test_after_the_end_events_pass_without_effect",
    ),
    "F85": (
        EVENTS + "test_an_answer_that_failed",
        EVENTS + "test_an_answer_that_ended",
        STREAM + "test_a_failed_generation_is_delivered_and_then_raised",
    ),
    "F86": (*FATAL, CODEC + "test_a_stray_error_is_a_failed_answer"),
    "F87": (*FATAL, ODD),
    # 3.5 consumer, handlers, life cycle
    "F88": (
        LIFE + "test_a_handlers_exception_is_its_own",
        DISPATCHER + "test_a_raising_handler_stops_the_stream_unwrapped_with_a_note",
        DISPATCHER + "test_on_error_recovers_a_handlers_failure_by_returning_true",
    ),
    "F89": (
        LIFE + "test_an_exit_from_a_handler_passes",
        CONNECT + "test_ctrl_c_ends_a_stream_cleanly",
        DISPATCHER + "test_exits_pass_through_handlers_untouched",
        DISPATCHER + "test_stop_async_iteration_of_a_handler_does_not_end_the_answer",
    ),
    "F90": (
        LIFE + "test_a_slow_handler_slows_the_server_and_not_the_others",
        DISPATCHER + "test_handlers_run_in_registration_order_and_are_awaited_one_by_one",
    ),
    "F92": (LIFE + "test_a_flood_leaves_turns_to_others",),
    "F93": (WIRE + "test_leaving_early_closes_the_connection",),
    "F94": (
        LIFE + "test_a_dropped_stream_closes_its_connection",
        STREAM + "test_a_dropped_stream_closes_and_warns",
    ),
    "F95": (LIFE + "test_a_dropped_stream_closes_its_connection",),
    "F96": (
        LIFE + "test_cancelled_in_the_pool",
        LIFE + "test_cancelled_in_backoff",
        WIRE + "test_cancelling_closes_the_connection",
        STREAM + "test_cancelling_at_every_suspension_closes_the_connection",
    ),
    "F97": (
        LIFE + "test_a_timeout_of_the_callers",
        STREAM + "test_a_timeout_of_the_caller_is_the_callers",
    ),
    "F98": (
        LIFE + "test_cancelled_while_closing",
        LIFE + "test_a_client_whose_closing_is_cancelled_leaves_nothing",
    ),
    "F99": (
        LIFE + "test_closing_the_client_ends_each_of_its_streams",
        WIRE + "test_closing_the_client_ends_its_streams",
        WIRE + "test_closing_the_client_ends_streams_that_wait_to_try_again",
    ),
    "F100": (
        LIFE + "test_use_after_close",
        WIRE + "test_a_client_works_after_and_without_its_context",
    ),
    "F101": (
        LIFE + "test_a_client_whose_closing_is_cancelled_leaves_nothing",
        WIRE + "test_a_client_that_is_dropped_open_warns_and_leaves_nothing",
    ),
    "F102": (LIFE + "test_two_readers", STREAM + "test_two_consumers_are_refused"),
    "F103": (
        LIFE + "test_a_handler_may_start_another_stream",
        LIFE + "test_a_handler_may_close_the_client",
        LIFE + "test_handlers_may_register_handlers",
        DISPATCHER + "test_a_handler_may_close_its_stream_and_start_another",
    ),
    "F104": (
        "fanout/test_fanout.py::test_no_more_than_max_connections",
        "fanout/test_descriptors.py::test_short_of_descriptors",
        "fanout/test_many.py::test_a_thousand_answers_of_an_unkind_server",
        WIRE + "test_many_answers_at_once",
    ),
    "F105": (
        LIFE + "test_a_storm_of_retries_ends",
        POLICY + "test_the_budget_is_taken_and_refunded",
        STREAM + "test_an_empty_budget_stops_retries",
    ),
    "F106": (
        LIFE + "test_the_wall_clock_may_jump",
        CONNECT + "test_connecting_is_not_slowed_by_the_wall_clock",
    ),
    "F107": (WIRE + "test_a_held_up_loop_does_not_end_healthy_streams",),
    "F108": (
        LIFE + "test_no_header_can_be_injected_by_value",
        LIFE + "test_no_header_can_be_injected_by_name",
    ),
    "F109": (
        LIFE + "test_no_log_holds_a_secret",
        WIRE + "test_the_key_shows_nowhere",
        WIRE + "test_a_cancelled_request_shows_no_key_either",
    ),
    "F110": (
        LIFE + "test_cookies_of_any_kind_are_not_kept",
        WIRE + "test_cookies_are_not_kept",
    ),
    "F111": (
        LIFE + "test_a_request_that_json_cannot_say",
        LIFE + "test_a_request_of_many_megabytes",
        REQUEST + "test_what_json_cannot_say_is_refused_at_once",
    ),
    "F112": (
        LIFE + "test_what_the_caller_changes_meanwhile_is_not_sent",
        STREAM + "test_the_same_bytes_are_sent_each_time",
    ),
}

LATER: dict[str, str] = {
    "F91": "no code of ours: a plain handler that blocks is asyncio's own warning, in its debug mode",
    "F113": "there is no recording yet",
}
"""Rows without a test, and why."""

ALL = {f"F{number:02}" for number in range(1, 114)}


@cache
def functions(path: str) -> dict[str, str]:
    """The test functions of a file, with their docstrings."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def said(docstring: str) -> set[str]:
    """The rows that a docstring begins with: ``F41 to F44, F46: ...``."""
    rows: set[str] = set()
    for first, last in re.findall(r"F(\d+)(?: to F(\d+))?", docstring.partition(": ")[0]):
        rows |= {f"F{number:02}" for number in range(int(first), int(last or first) + 1)}
    return rows


def test_every_row_is_held_or_has_a_reason() -> None:
    """All 113, each in one table, each held by something."""
    assert set(ROWS) | set(LATER) == ALL
    assert not set(ROWS) & set(LATER)
    assert all(ROWS.values())
    assert all(LATER.values())


@pytest.mark.parametrize("row", ROWS)
def test_every_test_that_is_named_exists(row: str) -> None:
    """A test that is renamed or removed leaves no row behind; ours say which rows they hold."""
    for node in ROWS[row]:
        path, _, name = node.partition("::")
        assert name in functions(path), node
        if path.startswith("catalogue/"):
            assert row in said(functions(path)[name]), node


def test_every_test_of_the_catalogue_holds_a_row() -> None:
    """No test here is forgotten in the table, and each begins with its rows, or with a rule."""
    named = {node for nodes in ROWS.values() for node in nodes}
    for path in sorted((TESTS / "catalogue").glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for name, docstring in functions(f"catalogue/{path.name}").items():
            assert re.match(r"[FR]\d", docstring), name
            if not docstring.startswith("R"):
                assert f"catalogue/{path.name}::{name}" in named, name
