"""An answer that is cut delivers exactly the events that arrived, wherever and however it is cut."""

import pytest

from tests.faults.processes import ACROSS, run_everywhere


@pytest.mark.timeout(600)
def test_a_cut_at_any_byte_loses_nothing_that_arrived() -> None:
    """FIN, RST, stall and garbage at every 7th byte of chunked, length- and EOF-delimited bodies."""
    run_everywhere("a 2 KB answer cut at every 7th byte", "--what", "cuts", "--every", "7")


@pytest.mark.timeout(600)
def test_a_cut_over_tls_loses_nothing_that_arrived() -> None:
    """The same at every 61st byte, with and without TLS's own goodbye."""
    run_everywhere(
        "the same over TLS, every 61st byte",
        *("--what", "cuts", "--every", "61", "--tls"),
        combinations=ACROSS,
    )
