"""What botocore and moto do for the sake of HTTP, done shorter where nobody speaks it; what is answered is the same.

moto checks no signature. It looks for the handler of each request by making some dozens of patterns, and makes a
request of WSGI by way of one that could upload files.
"""

import functools
import io
import re
import sys
from collections import defaultdict
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth, SigV4Auth
from botocore.compat import get_current_datetime
from botocore.exceptions import NoCredentialsError
from moto import backend_index
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core import request as moto_request
from moto.core.base_backend import BackendDict
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.exceptions import HTTPException
from moto.core.utils import get_equivalent_url_in_aws_domain
from werkzeug.datastructures import ImmutableMultiDict

from captions_cli.local.aws.repairs.replacements import Repair, Replace

PLAIN_URL = re.compile(r"https://[a-z0-9.-]+(/|/[A-Za-z0-9_.~%-][A-Za-z0-9_.~%/-]*)(\?[A-Za-z0-9_.~%/&=+-]+)?")
"""One of which werkzeug takes every part as it stands."""
NO_SIGNATURE = "0" * 64

_add_auth = SigV4Auth.add_auth
_process_request = BotocoreStubber.process_request
_from_primitives = moto_request.Request.from_primitives.__func__


def _put(replace: Replace) -> None:
    replace(SigV4Auth, "add_auth", add_no_signature)
    replace(BotocoreStubber, "process_request", process_request)
    replace(moto_request.Request, "from_primitives", classmethod(from_primitives))


def add_no_signature(self: Any, request: Any) -> None:
    """Sign a request as botocore does, but for the signature; who signs a URL signs it."""
    if type(self) not in (SigV4Auth, S3SigV4Auth):
        _add_auth(self, request)
        return
    if self.credentials is None:
        raise NoCredentialsError
    request.context["timestamp"] = get_current_datetime().strftime(SIGV4_TIMESTAMP)
    self._modify_request_before_signing(request)
    request.headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={self.scope(request)}, SignedHeaders=host, Signature={NO_SIGNATURE}"
    )


@functools.cache
def urls_of(service: str) -> list[tuple[re.Pattern[str], Any]]:
    """A service's handlers, by the URLs that are theirs."""
    backends: Any = get_backend(service)
    if isinstance(backends, BackendDict):
        backends = backends[DEFAULT_ACCOUNT_ID]
        backend = backends["us-east-1" if "us-east-1" in backends else "aws"]
    else:
        backend = backends["global"]
    return [(re.compile(url), handler) for url, handler in backend.urls.items()]


@functools.lru_cache(maxsize=10_000)
def handler_of(url: str) -> Any:
    """Return the handler of a URL, without its query; None where moto has none of its own for it."""
    for service, pattern in backend_index.backend_url_patterns:
        if pattern.match(url):
            for known, handler in urls_of(service):
                if known.match(url):
                    return handler
    return None


def process_request(self: Any, request: Any) -> Any:
    """Answer a request as moto does that passes none on to AWS."""
    parsed, _ = get_equivalent_url_in_aws_domain(request.url)
    handler = handler_of(f"{parsed.scheme}://{parsed.netloc}{parsed.path}")
    if handler is None:
        return _process_request(self, request)
    normalized = moto_request.normalize_request(request)
    url = request.url if PLAIN_URL.fullmatch(request.url) else normalized.raw_url
    try:
        return handler(normalized, url, normalized.headers)
    except HTTPException as error:
        return error.code, error.get_headers(), error.get_body()


def from_primitives(cls: Any, method: str, url: str, headers: Any, body: Any = None) -> Any:
    """Make a request of WSGI, as werkzeug does of one whose body is no form."""
    if isinstance(body, moto_request.AwsChunkedWrapper) or hasattr(body, "read"):
        body = body.read()
    if isinstance(body, str):
        body = body.encode()
    content_type = headers.get("Content-Type")
    if isinstance(content_type, bytes):
        content_type = content_type.decode()
    is_form = (content_type or "").startswith(("multipart/", "application/x-www-form-urlencoded"))
    if (is_form and not body) or PLAIN_URL.fullmatch(url) is None:
        return _from_primitives(cls, method, url, headers, body)
    parsed = urlsplit(url)
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(parsed.path).encode().decode("latin1"),
        "QUERY_STRING": parsed.query,
        "REQUEST_URI": parsed.path,
        "RAW_URI": parsed.path,
        "SERVER_NAME": parsed.netloc,
        "SERVER_PORT": "443",
        "HTTP_HOST": parsed.netloc,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if content_type is not None:
        environ["CONTENT_TYPE"] = content_type
    if (length := len(body) if body else headers.get("Content-Length")) is not None:
        environ["CONTENT_LENGTH"] = str(int(length))
    preserved, given = dict[str, str](), defaultdict[str, list[str]](list)
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH", "TRANSFER_ENCODING"):
            continue
        given[f"HTTP_{key}"].append(value.decode() if isinstance(value, bytes) else value)
        if moto_request.should_preserve_original_header_name(name):
            preserved[f"HTTP_{key}"] = name
    environ.update({key: ", ".join(values) for key, values in given.items()})
    environ[moto_request.PRESERVED_HEADER_NAMES_ENVIRON_KEY] = preserved
    environ.setdefault("CONTENT_LENGTH", "0")
    request = cls(environ)
    if not is_form:
        # What werkzeug finds, too, when it looks for a form.
        vars(request).update(form=ImmutableMultiDict(), files=ImmutableMultiDict(), _cached_data=body or b"")
    return request


IN_PROCESS = Repair("in process", "It and botocore prepare each request for a network that is not there.", _put)
