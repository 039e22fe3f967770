"""Which model is called next: what can do the job, in which order, and what a failure means for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from captions.gateway.catalogue import Model
from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import (
    AccountProblem,
    AttemptFailed,
    Exhausted,
    GatewayError,
    NoCapableModel,
    Refused,
    Unacceptable,
)
from captions.gateway.requests import MessageParts, least_tokens
from captions.gateway.types import Endpoint, Request

ServedBy = Callable[[str, str], tuple[Model, str] | None]

_BAD_REQUESTS = 2
"""Two models that call the same request wrong are right; one may only miss a feature (a response format, say)."""


@dataclass
class Target:
    """A model at an endpoint: its entry as this endpoint takes it, and the endpoint's name for it."""

    model: Model
    endpoint: Endpoint
    wire_name: str
    rank: tuple[int, int]
    tries: int = 0
    out: ErrorClass | None = None
    """Why it is out of this call for good."""
    last: ErrorClass | None = None
    demoted: int = 0


@dataclass
class Plan:
    """The candidates of one call, in the chain's order, and what became of them.

    The chain's order comes first and the endpoints' second: a model that is rate limited, missing or unreachable at one
    endpoint is looked for at the next. A failure that is the provider's own (5xx, a time-out, a broken answer, a
    refusal) lets the next candidate be one of another provider, where the chain has one.
    """

    candidates: list[Target]
    bad_requests: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        request: Request,
        chain: Sequence[str],
        endpoints: Sequence[Endpoint],
        served_by: ServedBy,
        parts: MessageParts,
    ) -> Plan:
        """Return the candidates that can do the job: that understand the media, hold the context and the body.

        `served_by` is `Catalogue.served`, or something that remembers what it said; None passes a model over.

        Raises:
            NoCapableModel: no model of the chain understands such media at any endpoint.
            Unacceptable: some do, but the request is too large for each of them.
        """
        candidates: list[Target] = []
        too_large = False
        tokens = least_tokens(request) + request.max_tokens
        for place, name in enumerate(dict.fromkeys(chain)):
            for order, endpoint in enumerate(endpoints):
                served = served_by(name, endpoint.base_url)
                if served is None or not _understands(served[0], request):
                    continue
                model, wire_name = served
                if (model.chats and tokens > model.context) or not parts.fit(model) or _too_long(model, request):
                    too_large = True
                    continue
                candidates.append(Target(model, endpoint, wire_name, (place, order)))
        if candidates:
            return cls(candidates)
        if too_large:
            raise Unacceptable("the request is too large for every model that understands its media")
        kinds = ", ".join(sorted({f"{medium.kind} ({medium.media_type})" for medium in request.media})) or "text"
        raise NoCapableModel(f"no model of the chain takes {kinds}")

    def in_order(self) -> list[Target]:
        """Return the candidates that are still in, those that are worth trying first at the front."""
        still_in = [candidate for candidate in self.candidates if candidate.out is None]
        if len(still_in) > 1:
            still_in.sort(key=lambda candidate: (candidate.tries, candidate.demoted, candidate.rank))
        return still_in

    def failed(self, tried: Target, failure: AttemptFailed) -> None:
        """Draw the consequences of a failure for the rest of the call."""
        error = failure.error_class
        tried.tries += 1
        tried.last = error
        if error is ErrorClass.ACCOUNT:
            self._drop(error, [c for c in self.candidates if c.endpoint == tried.endpoint])
        elif error is ErrorClass.UNAVAILABLE:
            self._drop(error, [tried])
        elif error is ErrorClass.UNFIT:
            self._drop(error, [c for c in self.candidates if c.model.name == tried.model.name])
        elif error is ErrorClass.REFUSED:
            self._drop(error, [c for c in self.candidates if c.model.name == tried.model.name])
            self._demote(c for c in self.candidates if c.model.provider == tried.model.provider)
        elif error is ErrorClass.TOO_LARGE:
            self._drop(error, [c for c in self.candidates if not _is_larger(c.model, tried.model)])
        elif error is ErrorClass.OURS:
            self._drop(error, [c for c in self.candidates if c.model.name == tried.model.name])
            self.bad_requests.add(tried.model.name)
            if len(self.bad_requests) >= _BAD_REQUESTS:
                self._drop(error, self.candidates)
        elif failure.unreachable:
            self._demote(c for c in self.candidates if c.endpoint == tried.endpoint)
        elif error in (ErrorClass.RATE_LIMITED, ErrorClass.TRUNCATED):
            pass  # says nothing about the provider's other models, nor about this one elsewhere
        else:
            self._demote(c for c in self.candidates if c.model.provider == tried.model.provider)

    @staticmethod
    def _drop(why: ErrorClass, candidates: Sequence[Target]) -> None:
        for candidate in candidates:
            if candidate.out is None:
                candidate.out = why

    @staticmethod
    def _demote(candidates: Iterable[Target]) -> None:
        for candidate in candidates:
            candidate.demoted += 1

    def last_error(self) -> GatewayError:
        """Return the error of a call in which no candidate is left."""
        reasons = {candidate.out for candidate in self.candidates}
        if ErrorClass.ACCOUNT in reasons:
            return AccountProblem("no endpoint is left that accepts the key and has credit")
        if ErrorClass.REFUSED in reasons:
            return Refused("every model that can do the job refused it")
        if ErrorClass.UNFIT in reasons:
            return Exhausted("no model gave an answer that the task can use")
        if ErrorClass.UNAVAILABLE in reasons:
            return Exhausted("no endpoint has the models of the chain at the moment", retry_after_s=300.0)
        if ErrorClass.TOO_LARGE in reasons:
            return Unacceptable("the request is too large for every model that understands its media")
        return Unacceptable("the models reject the request as wrong")


def _understands(model: Model, request: Request) -> bool:
    return (model.chats or request.transcription) and all(
        model.accepts(medium.kind, medium.media_type) for medium in request.media
    )


def _too_long(model: Model, request: Request) -> bool:
    """Tell whether some medium surely plays for longer than the model takes."""
    limits = ((medium.duration_s, model.longest(medium.kind)) for medium in request.media)
    return any(seconds is not None and longest is not None and seconds > longest for seconds, longest in limits)


def _is_larger(model: Model, than: Model) -> bool:
    return model.context > than.context or model.max_body > than.max_body
