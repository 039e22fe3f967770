"""boto3 clients, configured in one place: time-outs that fit inside a function's, retries, connections for threads."""

import os
from functools import cache
from typing import Any

CONNECTIONS = 64
"""Pooled connections of a client: a batch of ten uploads, each reading its index bands in parallel."""


@cache
def client(service: str) -> Any:
    """Return the process's client of an AWS service; boto3's clients are safe to share between threads."""
    import boto3
    from botocore.config import Config

    build: Any = boto3.client  # its overloads want each service's name as a literal
    return build(
        service,
        config=Config(
            max_pool_connections=CONNECTIONS,
            connect_timeout=3,
            read_timeout=15,
            retries={"mode": "standard", "max_attempts": 5},
            # Presigned URLs need version 4 in the newer regions. A stand-in for AWS has no DNS name for each bucket.
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"},
        ),
    )
