"""Links that models get name the region's own host, whatever the region, the partition and the bucket are called."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from captions.aws import clients
from captions.uploads.s3_objects import Objects
from captions.uploads.version import ObjectVersion, pad_sequencer

# Every partition that botocore knows and that has S3 in public.
REGIONS = [
    (region, {"aws": "amazonaws.com", "aws-cn": "amazonaws.com.cn", "aws-us-gov": "amazonaws.com"}[partition])
    for partition in ("aws", "aws-cn", "aws-us-gov")
    for region in boto3.Session().get_available_regions("s3", partition_name=partition)
]


@pytest.fixture(autouse=True)
def as_in_lambda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    clients.client.cache_clear()
    yield
    clients.client.cache_clear()  # or whatever comes next in this process asks a host of these


def link(bucket: str, seconds: float = 20.0) -> str:
    upload = ObjectVersion(bucket=bucket, key="a talk/über.mp4", version_id="v1", sequencer=pad_sequencer("1"))
    return Objects(clients.client("s3")).link(upload, seconds)


@pytest.mark.parametrize(("region", "suffix"), REGIONS)
def test_a_link_names_the_regions_own_host_and_is_signed_for_it(
    monkeypatch: pytest.MonkeyPatch, region: str, suffix: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    url = urlsplit(link("media-bucket"))
    query = parse_qs(url.query)
    assert url.hostname == f"media-bucket.s3.{region}.{suffix}"
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert f"/{region}/s3/" in query["X-Amz-Credential"][0]
    assert query["versionId"] == ["v1"]


@pytest.mark.parametrize("region", ["us-east-1", "eu-south-1", "cn-north-1"])
def test_a_bucket_with_dots_stays_in_the_path_of_the_regions_host(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    url = urlsplit(link("media.example.com"))
    assert url.hostname is not None
    assert url.hostname.startswith(f"s3.{region}.")
    assert url.path.startswith("/media.example.com/")


def test_a_link_is_good_for_as_long_as_was_asked_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert parse_qs(urlsplit(link("media-bucket", 12.3)).query)["X-Amz-Expires"] == ["13"]


def test_a_stand_in_for_aws_gets_the_bucket_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert link("media-bucket").startswith("http://127.0.0.1:4566/media-bucket/")
