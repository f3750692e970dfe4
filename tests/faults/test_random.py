"""Random faults at random offsets of random answers: no event is lost, doubled or altered."""

import pytest

from tests.faults.processes import ACROSS, run_everywhere


@pytest.mark.timeout(600)
def test_random_faults_lose_nothing() -> None:
    """A failure names its seed; ``--only SEED`` runs that stream alone."""
    run_everywhere(
        "random faults at random offsets", "--what", "random", "--count", "1000", "--seed", "1"
    )


@pytest.mark.timeout(600)
def test_random_faults_over_tls_lose_nothing() -> None:
    """A few of them; ``--only SEED --tls`` runs one alone."""
    run_everywhere(
        "random faults over TLS",
        *("--what", "random", "--count", "200", "--seed", "2", "--tls"),
        combinations=ACROSS,
    )
