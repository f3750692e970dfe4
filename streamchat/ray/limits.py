"""One limiter for a cluster: ``ClusterLimiter``, and the actor that holds it."""

from __future__ import annotations

from typing import Any

from streamchat.limiter import Limiter
from streamchat.protocol.errors import TransportError
from streamchat.ray.cluster import first_line, library
from streamchat.ray.leases import HOLD, MINUTE, Lease, LeasedLimiter, Limits, Returned

__all__ = ["ClusterLimiter"]


class _LimitsActor(Limits):
    """:class:`Limits`, which begins with a pause when Ray has started it again: what it had granted in
    the last minute is forgotten."""

    def __init__(self, rpm: float | None, tpm: float | None) -> None:
        context = library().get_runtime_context()
        again = bool(context.was_current_actor_reconstructed)
        super().__init__(rpm, tpm, paused=MINUTE + HOLD if again else 0)


class _RayLink:
    """The way to the limiter's actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._lost: type[Exception] = library().exceptions.RayError

    async def lease(self, wanted: list[float], /) -> Lease:
        try:
            lease: Lease = await self._actor.lease.remote(wanted)
        except self._lost as error:
            raise TransportError(
                f"the cluster's limiter was lost: {first_line(error)}", kind="closed"
            ) from None
        return lease

    def give_back(self, returned: list[Returned], /) -> None:
        self._actor.give_back.remote(returned)

    def pause(self, seconds: float, /) -> None:
        self._actor.pause.remote(seconds)


class ClusterLimiter:
    """Requests and tokens a minute for all actors of a cluster, of one job or of several.

    ::

        limiter = ClusterLimiter(rpm=10_000, tpm=5_000_000)
        RayFanOut(prompts, limiter=limiter, ...)
        dataset.map_batches(ChatUDF, fn_constructor_kwargs={"limiter": limiter}, ...)

    In no 60 seconds do the actors together use more than the limits: an actor leases permits for its
    requests that wait, and uses each within a second of its grant or gives it back. That second costs
    1.6 % of the rate; otherwise it is as :class:`streamchat.Limiter` says, turns between actors
    included. A ``Retry-After`` pauses all of them. When its actor is lost, Ray starts it again, and it
    grants nothing for the first 61 seconds.

    Args:
        rpm: requests a minute, from 1; ``None`` is no limit.
        tpm: tokens a minute, from 1; ``None`` is no limit.
        name: shared by all drivers of the cluster that give this name. The first sets the limits, and
            it lives until :meth:`close`; without one it ends with its driver.

    Raises:
        ConfigurationError: Ray is not installed.
        TypeError, ValueError: a limit that is no finite number from 1.

    Made in a driver; it pickles, and is the same one wherever it arrives. Nothing starts before that.
    """

    def __init__(
        self, *, rpm: float | None = None, tpm: float | None = None, name: str | None = None
    ) -> None:
        library()
        Limiter(rpm=rpm, tpm=tpm)  # says what is wrong with them
        self.rpm = rpm
        """Requests a minute."""
        self.tpm = tpm
        """Tokens a minute."""
        self.name = name
        """What other drivers find it by."""
        self._actor: Any = None

    def start(self) -> Any:
        """The actor, started if need be."""
        if self._actor is None:
            options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
            if self.name is not None:
                options |= {"name": self.name, "namespace": "streamchat"}
                options |= {"lifetime": "detached", "get_if_exists": True}
            remote = library().remote(max_concurrency=10_000, **options)(_LimitsActor)
            self._actor = remote.remote(self.rpm, self.tpm)
        return self._actor

    def joined(self, actor: Any) -> ClusterLimiter:
        """This, with an actor that runs already."""
        self._actor = actor
        return self

    def leased(self) -> LeasedLimiter:
        """This process's side of it."""
        return LeasedLimiter(_RayLink(self.start()), rpm=self.rpm, tpm=self.tpm)

    def close(self) -> None:
        """End it, for all. Idempotent."""
        actor, self._actor = self._actor, None
        if actor is not None:
            library().kill(actor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _joined, (self.rpm, self.tpm, self.name, self.start())

    def __repr__(self) -> str:
        return f"ClusterLimiter(rpm={self.rpm}, tpm={self.tpm}, name={self.name!r})"


def _joined(rpm: float | None, tpm: float | None, name: str | None, actor: Any) -> ClusterLimiter:
    return ClusterLimiter(rpm=rpm, tpm=tpm, name=name).joined(actor)
