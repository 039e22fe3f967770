"""What AWS puts before the API where people sign in: a user pool with its page and endpoints, and API Gateway.

Both are real servers on loopback. The pool checks what Cognito checks: client, redirect, scope, PKCE, codes and refresh
tokens that are good once. The gateway has the routes of api.yaml, and lets through what its authorizers would.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from captions_cli.local.cloudformation.translate import load_template
from support.serving import QuietHandler, serving

RESOURCES = load_template(Path(__file__).resolve().parents[2] / "api.yaml")["Resources"]
CLIENT_ID = "3n4b5urk1ft4fl3mg5e62d9ado"
STAGE = "/live"


class UserPool(ThreadingHTTPServer):
    """Cognito's user pool.

    `twist` is laid over the claims of its ID tokens, `back` over what it leads back with; `seen` are the addresses that
    it was asked for, `made` the tokens that it gave.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Pool)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.issuer = f"{self.url}/eu-west-1_Pool"
        self.key = RSAKey.generate_key(2048)
        self.people: dict[str, tuple[str, dict[str, str]]] = {}
        self.addresses: tuple[str, ...] = ()
        self.codes: dict[str, dict[str, str]] = {}
        self.refresh_tokens: dict[str, dict[str, str]] = {}
        self.made: list[str] = []
        self.seen: list[str] = []
        self.twist: dict[str, Any] = {}
        self.back: dict[str, str] = {}
        self.lifetime_s = 3600

    def token(self, **claims: Any) -> str:
        """Sign a token, by default an ID token of this pool for the console."""
        now = int(time.time())
        whole = {
            "iss": self.issuer, "aud": CLIENT_ID, "token_use": "id", "sub": "5c2f7a0e", "iat": now, "auth_time": now,
            "exp": now + self.lifetime_s, **claims,
        }  # fmt: skip
        token = jwt.encode(
            {"alg": "RS256"}, {name: claim for name, claim in whole.items() if claim is not None}, self.key
        )
        self.made.append(token)
        return token

    def grant(self, session: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer of the token endpoint."""
        attributes = self.people[session["username"]][1]
        # Beside other scopes, openid gives only what these name (Cognito's developer guide, "Scopes").
        shown = attributes if session["scope"] == "openid" else {}
        claims = {"sub": session["username"], "cognito:username": session["username"], **shown}
        refresh = secrets.token_urlsafe(24)
        self.refresh_tokens[refresh] = dict(session)
        self.made.append(refresh)
        nonce = {"nonce": session["nonce"]} if "nonce" in session else {}
        return {
            "id_token": self.token(**{**claims, **nonce, **self.twist}),
            "access_token": self.token(sub=session["username"], aud=None, token_use="access", client_id=CLIENT_ID),
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.lifetime_s,
        }


class _Pool(QuietHandler):
    server: UserPool

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        asked = dict(parse_qsl(urlsplit(self.path).query))
        match urlsplit(self.path).path:
            case "/oauth2/authorize":
                if asked.get("client_id") != CLIENT_ID or asked.get("redirect_uri") not in self.server.addresses:
                    return self.answer(400, "redirect_mismatch")  # never redirected to where it does not know
                wrong = self._wrong(asked)
                if wrong:
                    return self._back(asked, error=wrong)
                form = f"/login?{html.escape(urlsplit(self.path).query)}"
                fields = '<input name="username"><input name="password" type="password"><button>Sign in</button>'
                page = f'<!doctype html><title>Pool</title><form method="post" action="{form}">{fields}</form>'
                return self.answer(200, page, Content_Type="text/html")
            case "/logout":
                if asked.get("client_id") != CLIENT_ID or asked.get("logout_uri") not in self.server.addresses:
                    return self.answer(400, "redirect_mismatch")
                return self.answer(302, Location=asked["logout_uri"])
            case "/favicon.ico":
                return self.answer(204)
        return self.answer(404)

    @staticmethod
    def _wrong(asked: Mapping[str, str]) -> str:
        if asked.get("response_type") != "code":
            return "unauthorized_client"
        scopes = RESOURCES["UserPoolClient"]["Properties"]["AllowedOAuthScopes"]
        if not set(asked.get("scope", "").split()) <= set(scopes):
            return "invalid_scope"
        if asked.get("code_challenge_method") != "S256" or len(asked.get("code_challenge", "")) != 43:
            return "invalid_request"
        return ""

    def _back(self, asked: Mapping[str, str], **answer: str) -> None:
        query = urlencode({**answer, "state": asked.get("state", ""), **self.server.back})
        self.answer(302, Location=f"{asked['redirect_uri']}?{query}")

    def do_POST(self) -> None:
        self.server.seen.append(self.path)
        given = dict(parse_qsl(self.body().decode()))
        match urlsplit(self.path).path:
            case "/login":
                asked = dict(parse_qsl(urlsplit(self.path).query))
                if self.server.people.get(given.get("username", ""), ("",))[0] != given.get("password"):
                    return self.answer(401, "wrong name or password")
                code = secrets.token_urlsafe(16)
                self.server.codes[code] = {**asked, "username": given["username"]}
                return self._back(asked, code=code)
            case "/oauth2/token":
                granted = self._granted(given) if given.get("client_id") == CLIENT_ID else None
                status = 200 if granted else 400
                body = json.dumps(granted or {"error": "invalid_grant"})
                return self.answer(status, body, Content_Type="application/json", Access_Control_Allow_Origin="*")
            case "/oauth2/revoke":
                self.server.refresh_tokens.pop(given.get("token", ""), None)
                return self.answer(200, Access_Control_Allow_Origin="*")
        return self.answer(404)

    def _granted(self, given: Mapping[str, str]) -> dict[str, Any] | None:
        if given.get("grant_type") == "refresh_token":
            session = self.server.refresh_tokens.pop(given.get("refresh_token", ""), None)
            return session and self.server.grant({name: claim for name, claim in session.items() if name != "nonce"})
        session = self.server.codes.pop(given.get("code", ""), None)
        if session is None or session["redirect_uri"] != given.get("redirect_uri"):
            return None
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        proven = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == session["code_challenge"]
        return self.server.grant(session) if proven else None


def routes() -> dict[tuple[str, str], bool]:
    """The methods and paths of api.yaml, each with whether its authorizer is that of people's tokens."""

    def path(resource: Any) -> str:
        if "Ref" not in resource:
            assert resource == {"Fn::GetAtt": ["RestApi", "RootResourceId"]}
            return ""
        about = RESOURCES[resource["Ref"]]["Properties"]
        return f"{path(about['ParentId'])}/{about['PathPart']}"

    return {
        (about["HttpMethod"], path(about["ResourceId"]) or "/"): about["AuthorizationType"]
        == {"Fn::If": ["HasCognito", "COGNITO_USER_POOLS", "AWS_IAM"]}
        for about in (
            resource["Properties"] for resource in RESOURCES.values() if resource["Type"] == "AWS::ApiGateway::Method"
        )
    }


def route_of(method: str, path: str) -> bool | None:
    """Whether a request's route has the authorizer; None where there is no route (API Gateway: 403)."""
    table = routes()
    patterns = sorted({pattern for _, pattern in table}, key=lambda pattern: ("{proxy+}" in pattern, -len(pattern)))
    for pattern in patterns:  # the most specific first
        if re.fullmatch(re.escape(pattern).replace(re.escape("{proxy+}"), ".+"), path):
            return next((table[name, pattern] for name in (method, "ANY") if (name, pattern) in table), None)
    return None


class Gateway(ThreadingHTTPServer):
    """API Gateway's stage, and Lambda Web Adapter behind it; `api` is where the function's server is."""

    daemon_threads = True

    def __init__(self, api: str, pool: UserPool) -> None:
        super().__init__(("127.0.0.1", 0), _Gateway)
        self.api, self.pool = api, pool
        self.url = f"http://127.0.0.1:{self.server_port}{STAGE}"
        self.seen: list[str] = []

    def claims(self, header: str) -> dict[str, str] | str:
        """Return a token's claims as strings, or why it is refused."""
        try:
            claims = jwt.decode(header.removeprefix("Bearer ").strip(), self.pool.key, algorithms=["RS256"]).claims
        except (JoseError, ValueError):
            return "Unauthorized"
        wanted = RESOURCES["Authorized"]["Properties"]["IdentityValidationExpression"]["Fn::Sub"]
        audience = wanted.replace("${UserPoolClient}", CLIENT_ID)
        if claims["iss"] != self.pool.issuer or not re.search(audience, claims.get("aud", "")):
            return "Unauthorized"
        if claims["exp"] < time.time():
            return "The incoming token has expired"
        return {name: str(value) for name, value in claims.items()}


class _Gateway(QuietHandler):
    server: Gateway

    def _serve(self) -> None:
        self.server.seen.append(self.path)
        whole, _, query = self.path.partition("?")
        path = whole.removeprefix(STAGE) or "/"
        guarded = route_of(self.command, path) if whole.startswith(STAGE) else None
        claims = self.server.claims(self.headers.get("Authorization", "")) if guarded else {}
        if guarded is None:
            self._refuse(403, "Missing Authentication Token")
        elif isinstance(claims, str):
            self._refuse(401, claims)
        else:
            authorizer = {"authorizer": {"claims": claims}} if guarded else {}
            context = {"path": whole, "stage": STAGE[1:], "identity": {"userArn": None}, **authorizer}
            self._pass_on(f"{_resolved(path)}{'?' + query if query else ''}", context)

    def _pass_on(self, address: str, context: Mapping[str, Any]) -> None:
        own = ("host", "connection", "x-amzn-request-context")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in own}
        headers["x-amzn-request-context"] = json.dumps(context)
        request = urllib.request.Request(self.server.api + address, self.body() or None, headers, method=self.command)
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            while part := answer.read1(65536):  # as it comes
                self.wfile.write(part)
                self.wfile.flush()

    def _refuse(self, status: int, message: str) -> None:
        self.answer(status, json.dumps({"message": message}), Content_Type="application/json")

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = _serve


def _resolved(path: str) -> str:
    """As the adapter's URL type writes a path: without its `..`, encoded or not."""
    parts: list[str] = []
    for part in path.split("/"):
        match unquote(part):
            case "..":
                parts[1:] = parts[1:-1]
            case ".":
                pass
            case _:
                parts.append(part)
    return "/".join(parts) or "/"


@contextmanager
def user_pool() -> Iterator[UserPool]:
    """A user pool until the block ends."""
    with serving(UserPool()) as pool:
        yield pool


@contextmanager
def gateway(api: str, pool: UserPool) -> Iterator[Gateway]:
    """API Gateway before the function's server, until the block ends; the pool leads back to it, and nowhere else."""
    with serving(Gateway(api, pool)) as server:
        pool.addresses = (f"{server.url}/",)
        yield server
