"""boto3 clients, configured in one place: time-outs that fit inside a function's, retries, connections for threads."""

import os
from typing import Any

from captions.once import once

CONNECTIONS = 64
"""Pooled connections of a client: a batch of ten uploads, each reading its index bands in parallel."""


def s3_addressing(endpoint_url: str | None) -> Any:
    """Return how S3 clients name buckets and hosts: the region's own host, in presigned URLs too.

    With botocore's "auto" a presigned URL names the global endpoint, which regions launched since March 2019 refuse and
    others redirect to a host that the signature does not cover (Amazon S3 user guide, "Virtual hosting of buckets").
    A bucket with a dot in its name stays in the path, as no certificate covers it; so does every bucket of a stand-in
    for AWS (`endpoint_url`), which has no DNS name for each.
    """
    style = "path" if endpoint_url else "virtual"
    return {"addressing_style": style, "us_east_1_regional_endpoint": "regional"}


@once
def client(service: str) -> Any:
    """Return the process's client of an AWS service.

    Clients are safe to share between threads, creating them is not (boto3, "Multithreading or multiprocessing with
    clients").
    """
    import boto3
    from botocore.config import Config

    build: Any = boto3.client  # its overloads want each service's name as a literal
    config = Config(
        max_pool_connections=CONNECTIONS,
        connect_timeout=3,
        read_timeout=15,
        retries={"mode": "standard", "max_attempts": 5},
        # Presigned URLs need version 4 in the newer regions.
        signature_version="s3v4" if service == "s3" else None,
        s3=s3_addressing(os.environ.get("AWS_ENDPOINT_URL")),
    )
    return build(service, config=config)
