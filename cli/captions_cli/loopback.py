"""Reaches what runs on this machine, whatever the surroundings say of proxies, profiles and AWS configuration."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import urllib.request

    import boto3

LOCAL_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""What the local stack's AWS stand-in is given; it accepts anything."""
HOSTS = ("127.0.0.1", "localhost", "::1")


def session(region: str) -> "boto3.Session":
    """Return a session for the AWS stand-in; profiles and configuration files, which may be broken, are left unread."""
    import boto3
    import botocore.session

    nothing = (None, None, None, None)
    no_file = (None, None, os.devnull, None)
    variables = {"profile": nothing, "config_file": no_file, "credentials_file": no_file}
    return boto3.Session(
        botocore_session=botocore.session.Session(session_vars=variables),
        aws_access_key_id=LOCAL_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=LOCAL_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=region,
    )


def urlopen(request: "urllib.request.Request", timeout: float) -> Any:
    """Open an HTTP request as `urllib.request.urlopen` does, without a proxy where it is for this machine.

    A redirect raises `urllib.error.HTTPError`, as every other status that is no success.
    """
    import urllib.request  # a twelfth of the time that `captions --help` takes

    class Stay(urllib.request.HTTPRedirectHandler):
        """Follows no redirect, which would take the request's key to a host that nobody configured."""

        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    handlers = [urllib.request.ProxyHandler({})] if urlsplit(request.full_url).hostname in HOSTS else []
    return urllib.request.build_opener(Stay, *handlers).open(request, timeout=timeout)


def no_proxy(*hosts: str, env: Mapping[str, str]) -> str:
    """Return the value of NO_PROXY that keeps what `env` says and leaves this machine, and `hosts`, out."""
    direct = env.get("no_proxy") or env.get("NO_PROXY") or ""
    names = [name.strip() for name in direct.split(",") if name.strip()]
    return ",".join(dict.fromkeys([*names, "127.0.0.1", "localhost", *(host for host in hosts if host)]))


def proxy_exception(url: str) -> dict[str, str]:
    """Return the variable that lets other programs reach `url` past this process's proxies; empty when none is needed.

    Where both spellings are set, programs read the lower-case one.
    """
    import urllib.request

    host = urlsplit(url).hostname or ""
    proxies = urllib.request.getproxies_environment()
    if not set(proxies) - {"no"} or urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return {}
    return {"no_proxy" if os.environ.get("no_proxy") else "NO_PROXY": no_proxy(host, env=os.environ)}
