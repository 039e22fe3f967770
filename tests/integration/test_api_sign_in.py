"""The console's files where people sign in: for everybody, below any prefix, and nothing else with them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captions.config.function_environments import ApiSettings
from support.api import Api, api_on, path_of
from support.pipeline import aws_for_the_pipeline

POOL: dict[str, Any] = {
    "sign_in_client_id": "console",
    "sign_in_issuer": "https://idp.example/pool",
    "sign_in_url": "https://in.example",
}
CLAIMS = {"sub": "1", "cognito:username": "ann", "token_use": "id", "aud": "console", "custom:prefixes": "photos/"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder: Path = tmp_path_factory.mktemp("console")
    (folder / "static").mkdir()
    (folder / "static" / "main-ABC.js").write_text("1")
    (folder / "index.html").write_text('<script src="static/main-ABC.js"></script>')
    with (
        aws_for_the_pipeline() as aws,
        api_on(aws, None, api_authorizer="cognito", console_dir=str(folder), **POOL) as made,
    ):
        yield made


def through_gateway(
    api: Api, path: str, stage: str = "/live", claims: dict[str, Any] | None = None, method: str = "GET"
) -> Any:
    context = {
        "path": stage + path,
        "identity": {"userArn": None},
        **({"authorizer": {"claims": claims}} if claims else {}),
    }
    return api.call(method, path, token=None, headers={"x-amzn-request-context": json.dumps(context)})


@pytest.mark.parametrize(
    ("stage", "source"),
    [
        ("", "static/"), ("/live", "/live/static/"), ("/shop/captions", "/shop/captions/static/"),
        ("//evil.example", "static/"), ('/"><script>', "static/"), ("/live\n", "static/"),
    ],
)  # fmt: skip
def test_the_page_finds_its_files_below_any_prefix(api: Api, stage: str, source: str) -> None:
    answer = through_gateway(api, "/", stage)
    assert answer.text == f'<script src="{source}main-ABC.js"></script>'
    assert answer.headers["cache-control"] == "no-cache"


def test_the_files_are_for_everybody_and_are_kept_for_good(api: Api) -> None:
    answer = through_gateway(api, "/static/main-ABC.js")
    assert (answer.status_code, answer.text) == (200, "1")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    policy = answer.headers["content-security-policy"]
    assert "connect-src 'self' https://media.s3.us-east-1.amazonaws.com https://in.example;" in policy
    assert "unsafe" not in policy
    configuration = through_gateway(api, "/config.json").json()["sign_in"]
    assert configuration == {
        "issuer": "https://idp.example/pool", "url": "https://in.example", "client_id": "console", "scope": "openid",
    }  # fmt: skip


def test_nothing_else_is_answered_without_an_authorizers_word(api: Api) -> None:
    record, other = api.captioned("photos/a.jpg"), api.captioned("scans/b.jpg")
    for path in ("/v1/assets", "/v1/openapi.json", "/config.json/", "/static", "/v1", path_of(record)):
        assert through_gateway(api, path).status_code == 401, path
    assert through_gateway(api, "/static/%2e%2e/v1/assets").status_code == 404
    assert through_gateway(api, path_of(record), claims=CLAIMS).json()["key"] == "photos/a.jpg"
    assert through_gateway(api, path_of(other), claims=CLAIMS).status_code == 404


def test_who_has_a_caption_open_is_shown_by_address(api: Api) -> None:
    path = path_of(api.captioned("photos/open.jpg"))
    ann = {**CLAIMS, "email": "ann@example.org", "email_verified": "true"}
    assert through_gateway(api, f"{path}/open", claims=ann, method="POST").json()["by"] == "ann@example.org"
    assert through_gateway(api, path, claims=ann).json()["opened_by"] is None, "one's own is nobody else's"
    assert through_gateway(api, path, claims=CLAIMS).json()["opened_by"]["by"] == "ann@example.org"


@pytest.mark.parametrize("missing", POOL)
def test_without_a_pool_nobody_can_sign_in_and_nothing_starts(api: Api, missing: str) -> None:
    given = {**api.services.settings.model_dump(), missing: None}
    with pytest.raises(ValueError, match="cognito needs"):
        ApiSettings.model_validate(given)


def test_callers_who_sign_their_requests_sign_them_for_the_console_too(api: Api) -> None:
    with api_on(api.aws, None, api_authorizer="iam") as signed:
        for path in ("/", "/config.json", "/static/main-ABC.js"):
            assert signed.call("GET", path, token=None).status_code == 401
        context = json.dumps({"path": "/live/", "identity": {"userArn": "arn:aws:iam::1:user/x"}})
        answer = signed.call("GET", "/config.json", token=None, headers={"x-amzn-request-context": context})
        assert answer.json() == {"sign_in": None, "search": False}
