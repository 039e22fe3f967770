"""Lets the console's page send uploads to the bucket, which is another origin (Amazon S3 user guide, "Using CORS").

moto answers a preflight by the bucket's rules, and then leaves the header out of the answer to a form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from captions_cli.local.aws.server import AwsCall, Forward

if TYPE_CHECKING:
    from werkzeug.wrappers import Response


class CrossOrigin:
    """Allows requests to S3 from pages of `origins` (scheme, host and port)."""

    def __init__(self) -> None:
        self.origins: set[str] = set()

    def __call__(self, call: AwsCall, forward: Forward) -> Response:
        """Answer preflights, and say in every other answer that the page may read it."""
        from werkzeug.wrappers import Response

        origin = str(call.environ.get("HTTP_ORIGIN", ""))
        if call.service != "s3" or origin not in self.origins:
            return forward(call)
        preflight = call.environ["REQUEST_METHOD"] == "OPTIONS"
        answer = Response(status=200) if preflight else forward(call)
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers["Access-Control-Expose-Headers"] = "ETag"
        answer.headers["Vary"] = "Origin"
        if preflight:
            answer.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT"
            answer.headers["Access-Control-Allow-Headers"] = "*"
        return answer
