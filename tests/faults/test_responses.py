"""Every raw response of faults.md 5.1 and 5.3 ends as its table says, in time, leaving nothing."""

import pytest

from tests.faults.processes import ACROSS, run_everywhere


@pytest.mark.timeout(600)
def test_every_raw_response_ends_as_the_table_says() -> None:
    """Fast and slow consumers: one end, one of ours, within its limit + 0.2 s, an exact prefix."""
    run_everywhere("raw responses (faults.md 5.1, 5.3)", "--what", "responses")


@pytest.mark.timeout(600)
def test_raw_responses_end_the_same_way_over_tls() -> None:
    """Each fourth case, so of the large answers each with another consumer: see test_tls.py."""
    run_everywhere(
        "raw responses over TLS",
        *("--what", "responses", "--share", "4", "--tls"),
        combinations=ACROSS,
    )
