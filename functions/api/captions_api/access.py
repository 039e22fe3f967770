"""Who is calling, and which keys that caller may see.

Behind API Gateway its authorizer has said who is calling, and Lambda Web Adapter passes that on in a header that it
sets itself. On one machine the caller has the token that `captions up` printed: in the address first, then as a cookie
that no other site's page can send, or as a bearer token.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captions_api.problems import Refusal, not_signed_in_page

COOKIE = "captions"
CLAIM = "custom:prefixes"
"""The Cognito attribute that limits a person to key prefixes, comma separated. Its owner cannot change it."""
OPEN_PATHS = frozenset({"/healthz"})
CONSOLE_PATHS = frozenset({"/", "/config.json"})
"""What people get before they have a token, beside what is below /static/: files that hold no data."""
_CONTEXT_HEADER = "x-amzn-request-context"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Caller:
    """Who is calling, and the beginnings of the keys they may see; ("",) is every key, () is none."""

    name: str
    prefixes: tuple[str, ...] = ("",)
    address: str = ""
    """A person's verified e-mail address: a user pool's own names are ids, which tell nobody anything."""

    @property
    def shown(self) -> str:
        """What others are shown of who has something open."""
        return self.address or self.name

    @property
    def limited(self) -> bool:
        """Whether there is a key they may not see."""
        return "" not in self.prefixes

    def within(self, prefixes: tuple[str, ...]) -> Caller:
        """Return this caller, who may see those keys alone that these prefixes and their own both begin."""
        both = {
            own if own.startswith(other) else other
            for own in self.prefixes
            for other in prefixes
            if own.startswith(other) or other.startswith(own)
        }
        return replace(self, prefixes=tuple(sorted(both)))

    def may(self, key: str) -> bool:
        """Tell whether a key is theirs to see."""
        return key.startswith(self.prefixes)


Authorizer = Callable[[Headers, Scope], Caller]
"""Says who is calling; raises Refusal (401) when nobody is."""


class Tokens:
    """Callers by their tokens."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self._callers = {token.encode(): caller for token, caller in callers.items()}

    def __call__(self, headers: Headers, scope: Scope) -> Caller:
        """Return who has the request's token."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        token = given.strip() if kind.lower() == "bearer" else cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        caller = self.of(token)
        if caller is None:
            raise Refusal(
                401,
                "no-token",
                "open the address with the token that `captions up` printed, or send it as a bearer token",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return caller

    def of(self, token: str) -> Caller | None:
        """Return who has a token."""
        given = token.encode("utf-8", "surrogateescape")
        # Each is compared, whichever fits, so that time tells nothing of them.
        fitting = [caller for known, caller in self._callers.items() if hmac.compare_digest(known, given)]
        return fitting[0] if fitting else None


def gateway_context(headers: Headers) -> dict[str, Any]:
    """Return what API Gateway tells of a request, as Lambda Web Adapter passes it on; {} where nothing does."""
    try:
        context = json.loads(headers.get(_CONTEXT_HEADER, ""))
    except ValueError:
        return {}
    return context if isinstance(context, dict) else {}


@dataclass(frozen=True)
class GatewayAuthorizer:
    """Takes whom API Gateway's authorizer let through.

    `client_id` is the one application whose tokens count. Only ID tokens do: an access token of the same person
    does not have the claim that limits them.
    """

    client_id: str | None = None

    def __call__(self, headers: Headers, scope: Scope) -> Caller:
        """Return the caller; raises Refusal (401) where the authorizer's word is missing, or is not enough."""
        context = gateway_context(headers)
        try:
            claims = (context.get("authorizer") or {}).get("claims") or {}
            arn = (context.get("identity") or {}).get("userArn")
        except AttributeError:
            claims, arn = {}, None
        if claims.get("sub"):
            return self._person(claims)
        if arn:
            return Caller(str(arn))
        raise Refusal(401, "not-signed-in", "the request came without an authorizer's word on who is calling")

    def _person(self, claims: Mapping[str, Any]) -> Caller:
        if self.client_id is not None and claims.get("token_use") != "id":
            raise Refusal(401, "wrong-token", "this is no ID token, which alone tells what its owner may see")
        if self.client_id is not None and claims.get("aud") != self.client_id:
            raise Refusal(401, "wrong-client", "this token was made for another application")
        name = f"cognito:{claims.get('cognito:username') or claims['sub']}"
        address = str(claims.get("email", "")) if claims.get("email_verified") == "true" else ""
        if CLAIM in claims:
            prefixes = tuple(prefix.strip() for prefix in str(claims[CLAIM]).split(",") if prefix.strip())
            return Caller(name, prefixes, address)
        return Caller(name, address=address)


@dataclass
class Door:
    """Lets nobody in without an authorizer's word, and, where there are tokens, no page of another site."""

    app: ASGIApp
    authorizer: Authorizer
    tokens: Tokens | None = None
    hosts: frozenset[str] = frozenset()
    """Where there are tokens: the names, with their ports, that requests may be for. A name that leads to this machine
    and is another site's (DNS rebinding) is none of them."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Those of every answer."""
    open_console: bool = False
    """Whether the console's files are for everybody, so that people can sign in with them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its caller in `scope["state"]`, or answer why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        await self._let_in(scope, receive, answer)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            if self.tokens is not None:
                self._own_site(headers, scope)
                if (entered := self._entered(scope)) is not None:
                    await entered(scope, receive, send)
                    return
            if not self._open(scope["path"]):
                scope.setdefault("state", {})["caller"] = self.authorizer(headers, scope)
        except Refusal as problem:
            at_a_browser = self.tokens is not None and "text/html" in headers.get("accept", "")
            response = not_signed_in_page() if at_a_browser and problem.status == 401 else problem.response()
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _open(self, path: str) -> bool:
        return path in OPEN_PATHS or (self.open_console and (path in CONSOLE_PATHS or path.startswith("/static/")))

    def _own_site(self, headers: Headers, scope: Scope) -> None:
        if headers.get("host", "").lower() not in self.hosts:
            raise Refusal(403, "wrong-host", "this address is not where the console is served")
        origin = headers.get("origin")
        if origin is None:
            same = headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        else:
            same = urlsplit(origin).netloc.lower() in self.hosts
        if not same and (origin is not None or scope["method"] not in _SAFE):
            raise Refusal(403, "wrong-origin", "another site's page may not use the API")

    def _entered(self, scope: Scope) -> RedirectResponse | None:
        """Take the token out of the address, where it would stay in the history, into a cookie."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
        token = query.get("token")
        if token is None or self.tokens is None:
            return None
        if self.tokens.of(token) is None:
            raise Refusal(401, "no-token", "this token is not of the stack that is up now")
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
        return response


def caller_of(scope: Scope) -> Caller:
    """Return who the door let in."""
    caller: Caller = scope["state"]["caller"]
    return caller
