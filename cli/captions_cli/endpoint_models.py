"""Sets the model catalogue beside what the stack's endpoint offers."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captions.gateway.catalogue import Catalogue, CatalogueError, Comparison, compare_with_endpoint, load
from captions.overrides import UnreadableError, read
from captions_cli import loopback
from captions_cli.errors import CommandError, ExitCode, explain
from captions_cli.stack import Stack

URL_VARIABLE = "CAPTIONS_ENDPOINT_URL"
KEY_VARIABLE = "CAPTIONS_ENDPOINT_KEY"
SECONDS = 20


@dataclass(frozen=True)
class Offer:
    """The catalogue, and beside it what one endpoint offers."""

    endpoint: str
    catalogue: Catalogue
    comparison: Comparison


def compare(stack: Stack, env: Mapping[str, str] | None = None) -> list[Offer]:
    """Ask every endpoint of a stack for its models.

    CAPTIONS_ENDPOINT_URL and CAPTIONS_ENDPOINT_KEY go before what the stack was made with. Raises CommandError when an
    endpoint does not answer as an OpenAI-compatible one does.
    """
    env = os.environ if env is None else env
    catalogue = catalogue_of(stack)
    return [
        Offer(url, catalogue, _compared(catalogue, url, _listed(url, key(stack, url, env))))
        for url in endpoints(stack, env)
    ]


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
    from captions.gateway.api_keys import NO_KEY, parse_secret

    if key := env.get(KEY_VARIABLE):
        return key
    try:
        answer = stack.client("secretsmanager").get_secret_value(SecretId=stack.output("EndpointSecretArn"))
    except Exception as error:
        told = explain(error)
        if told is None:
            raise
        raise CommandError(f"{told.message}; {KEY_VARIABLE} can give the key instead", told.exit_code) from error
    keys = parse_secret(answer["SecretString"])
    return keys.get(url, keys.get("default", "")) or NO_KEY


def catalogue_of(stack: Stack) -> Catalogue:
    """The catalogue that a stack's functions work by.

    Raises CommandError when its override cannot be read or is broken; the functions then keep the last good one.
    """
    where = stack.parameters.get("ModelsOverride")
    try:
        text = read(where, stack.client) if where else None
    except UnreadableError as error:
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


def _listed(url: str, key: str) -> Mapping[str, Any]:
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {key}"})  # noqa: S310
    try:
        with loopback.urlopen(request, timeout=SECONDS) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        raise CommandError(f"{url} answered {error.code} {error.reason} to /models", ExitCode.UNREACHABLE) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise CommandError(f"{url} does not list its models: {reason}", ExitCode.UNREACHABLE) from error
    return found if isinstance(found, Mapping) else {}


def _compared(catalogue: Catalogue, url: str, listed: Mapping[str, Any]) -> Comparison:
    try:
        return compare_with_endpoint(catalogue, listed, url)
    except CatalogueError as error:
        raise CommandError(f"{url}: {error}", ExitCode.UNREACHABLE) from error
