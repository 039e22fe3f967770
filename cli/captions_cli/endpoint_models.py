"""Sets the model catalogue beside what the stack's endpoint offers."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

from captions.gateway.catalogue import Catalogue, CatalogueError, load
from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import classify_error_object, classify_status
from captions.overrides import UnreadableOverrideError, read
from captions_cli import loopback, price_lists
from captions_cli.catalogue_comparison import CatalogueComparison, compare_with_endpoint
from captions_cli.errors import CommandError, ExitCode, explain
from captions_cli.price_lists import Price
from captions_cli.stack import Stack

URL_VARIABLE = "CAPTIONS_ENDPOINT_URL"
KEY_VARIABLE = "CAPTIONS_ENDPOINT_KEY"
SECONDS = 20
_MOST_BYTES = 16_000_000
"""Of a list of models; the longest that are known take a few."""


@dataclass(frozen=True)
class Offer:
    """The catalogue, and beside it what one endpoint offers."""

    endpoint: str
    catalogue: Catalogue
    comparison: CatalogueComparison


def compare(stack: Stack, env: Mapping[str, str] | None = None) -> list[Offer]:
    """Ask every endpoint of a stack for its models.

    CAPTIONS_ENDPOINT_URL and CAPTIONS_ENDPOINT_KEY go before what the stack was made with. Raises CommandError when an
    endpoint does not answer as an OpenAI-compatible one does.
    """
    env = os.environ if env is None else env
    catalogue = catalogue_of(stack)
    return [Offer(url, catalogue, _compared(catalogue, url, key(stack, url, env))) for url in endpoints(stack, env)]


def endpoints(stack: Stack, env: Mapping[str, str]) -> list[str]:
    """The base URLs of a stack's endpoints, in failover order; CAPTIONS_ENDPOINT_URL of `env` goes before them.

    Raises CommandError when there is none.
    """
    given = env.get(URL_VARIABLE) or stack.local_model_endpoint_url or stack.parameters.get("EndpointUrls", "")
    urls = [url.strip().rstrip("/") for url in given.split(",") if url.strip()]
    if not urls:
        raise CommandError(f"{stack.where} names no model endpoint; set {URL_VARIABLE}", ExitCode.UNREACHABLE)
    return urls


def key(stack: Stack, url: str, env: Mapping[str, str]) -> str:
    """The key for one endpoint: CAPTIONS_ENDPOINT_KEY of `env`, else what the stack's secret holds for it.

    Raises CommandError when the secret cannot be read.
    """
    from captions.endpoint_secret import parse_secret
    from captions.gateway.api_keys import NO_KEY

    if key := env.get(KEY_VARIABLE):
        return key
    try:
        answer = stack.client("secretsmanager").get_secret_value(SecretId=stack.output("EndpointSecretArn"))
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        raise CommandError(
            f"{explained.message}; {KEY_VARIABLE} can give the key instead", explained.exit_code
        ) from error
    keys = parse_secret(answer["SecretString"])
    return keys.get(url, keys.get("default", "")) or NO_KEY


def catalogue_of(stack: Stack) -> Catalogue:
    """The catalogue that a stack's functions work by.

    Raises CommandError when its override cannot be read or is broken; the functions then keep the last good one.
    """
    where = stack.parameters.get("ModelsOverride")
    try:
        text = read(where, stack.client) if where else None
    except UnreadableOverrideError as error:
        raise CommandError(str(error), ExitCode.AWS) from error
    try:
        return load(text)
    except CatalogueError as error:
        raise CommandError(f"{where}: {error}", ExitCode.USAGE) from error


def catalogue_with(file: Path | None) -> Catalogue:
    """The packaged catalogue with a file laid over it, as `ModelsOverride` does.

    Raises CommandError when the file cannot be read or is no such document.
    """
    try:
        return load(file.read_text(encoding="utf-8") if file is not None else None)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}", ExitCode.USAGE) from error
    except CatalogueError as error:
        raise CommandError(f"{file}: {error}", ExitCode.USAGE) from error


def _listed(url: str, key: str) -> object:
    try:
        return ask(f"{url}/models", key)
    except urllib.error.HTTPError as error:
        raise CommandError(f"{url} answered {error.code} {error.reason} to /models", ExitCode.UNREACHABLE) from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise CommandError(f"{url} does not list its models: {reason}", ExitCode.UNREACHABLE) from error


@dataclass(frozen=True)
class EndpointLook:
    """What an endpoint's list of models tells; without a `comparison` there is none, and `message` says why."""

    comparison: CatalogueComparison | None
    level: Literal["ok", "unknown", "problem"] = "ok"
    message: str = ""
    remedy: str = ""


def look(url: str, key: str, catalogue: Catalogue) -> EndpointLook:
    """Ask an endpoint for its models, and say what is wrong where it does not tell them."""
    try:
        return EndpointLook(compare_with_endpoint(catalogue, ask(f"{url}/models", key), url))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            remedy = "put a key that it takes into the secret; the functions take a new one by themselves"
            message = f"{url} does not take the key ({error.code} {error.reason})"
            return EndpointLook(None, "problem", message, remedy)
        if error.code == 404:
            message = f"{url} lists no models (404); whether it takes the key is not known"
            return EndpointLook(None, "unknown", message)
        remedy = "ask its operator; the functions go on with the next endpoint meanwhile"
        return EndpointLook(None, "problem", f"{url} answers {error.code} {error.reason}", remedy)
    except CatalogueError as error:
        remedy = "give the base URL of an OpenAI-compatible endpoint, with its /v1"
        return EndpointLook(None, "problem", f"{url}: {error}", remedy)
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        remedy = "if only AWS reaches it, ask from there; else see its address and that it runs"
        return EndpointLook(None, "problem", f"{url} cannot be reached from here: {reason}", remedy)


def trouble_with_given(env: Mapping[str, str]) -> tuple[str, bool] | None:
    """Say what is wrong with the endpoints of CAPTIONS_ENDPOINT_URL, in one line, and whether that is certain.

    None where it names none, or one of them lists its models: functions go on with the next one.
    """
    from captions.gateway.api_keys import NO_KEY

    urls = [url.strip().rstrip("/") for url in env.get(URL_VARIABLE, "").split(",") if url.strip()]
    looks = [look(url, env.get(KEY_VARIABLE) or NO_KEY, load()) for url in urls]
    if not looks or any(finding.comparison is not None for finding in looks):
        return None
    return f"{URL_VARIABLE}: {'; '.join(finding.message for finding in looks)}", all(
        finding.level == "problem" for finding in looks
    )


def prices(url: str, key: str, listed: object) -> Mapping[str, Price]:
    """The prices that an endpoint tells: in its list of models, or where LiteLLM's proxy has them."""
    if listed_prices := price_lists.prices(listed):
        return listed_prices
    try:
        return price_lists.prices(ask(f"{url}/model/info", key))
    except (OSError, ValueError, HTTPException):
        return {}


def ask(url: str, key: str, body: Mapping[str, Any] | None = None) -> Any:
    """Return the decoded answer of an endpoint to a GET, or to a POST of `body`.

    Raises:
        urllib.error.HTTPError: it answered with an error, or with a redirect, which is not followed.
        OSError, http.client.HTTPException: it could not be reached, or broke off.
        ValueError: its answer is no JSON, or too large or too deep to be one that was asked for.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310
    with loopback.urlopen(request, timeout=SECONDS) as answer:
        return decoded(answer)


def decoded(answer: Any) -> Any:
    """Return the JSON of an answer. Raises ValueError when it is none, too large or too deep."""
    text = answer.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ValueError(f"the answer has more than {_MOST_BYTES} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the answer is nested too deep") from None


def serves(url: str, key: str, catalogue: Catalogue, names: Sequence[str]) -> tuple[str, bool | None] | None:
    """Ask an endpoint for a word of one of the models: which it was, and whether it answered (None: not known).

    A proxy with wildcards lists other names than it serves, so only an answer tells. The first of the models that chat
    and that this endpoint is to serve is asked; None when there is none. It costs a few tokens.
    """
    given = ((name, catalogue.served(name, url)) for name in names)
    name, wire = next(
        ((name, served[1]) for name, served in given if served and "text" in served[0].modalities), ("", "")
    )
    if not name:
        return None
    question = [{"role": "user", "content": "Say yes."}]
    try:
        answer = ask(f"{url}/chat/completions", key, {"model": wire, "messages": question, "max_tokens": 16})
    except urllib.error.HTTPError as error:
        try:
            body: object = decoded(error)
        except (OSError, ValueError, HTTPException):
            body = None
        return name, False if classify_status(error.code, body) is ErrorClass.UNAVAILABLE else None
    except (OSError, ValueError, HTTPException):
        return name, None
    if not isinstance(answer, Mapping):
        return name, None
    if failed := answer.get("error"):
        return name, False if classify_error_object(failed)[0] is ErrorClass.UNAVAILABLE else None
    return name, True if answer.get("choices") else None


def _compared(catalogue: Catalogue, url: str, key: str) -> CatalogueComparison:
    listed = _listed(url, key)
    try:
        return compare_with_endpoint(catalogue, listed, url, prices(url, key, listed))
    except CatalogueError as error:
        raise CommandError(f"{url}: {error}", ExitCode.UNREACHABLE) from error
