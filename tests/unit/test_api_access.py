"""Who is calling, as API Gateway's authorizer says and Lambda Web Adapter passes on."""

import json
import subprocess
import sys
from typing import Any

import pytest
from captions_api.access import Caller, GatewayAuthorizer, Tokens
from captions_api.cursors import Seal
from captions_api.problems import Refusal
from starlette.datastructures import Headers


def caller(context: Any) -> Caller:
    return GatewayAuthorizer("console")(Headers({"x-amzn-request-context": json.dumps(context)}), {})


def person(**claims: str) -> dict[str, Any]:
    whole = {"sub": "1", "cognito:username": "ann", "token_use": "id", "aud": "console", **claims}
    return {"authorizer": {"claims": whole}}


@pytest.mark.parametrize(
    ("claim", "prefixes"),
    [("photos/", ("photos/",)), ("photos/, scans/", ("photos/", "scans/")), ("", ()), (" , ", ())],
)
def test_a_person_is_limited_to_the_prefixes_of_their_claim(claim: str, prefixes: tuple[str, ...]) -> None:
    assert caller(person(**{"custom:prefixes": claim})) == Caller("cognito:ann", prefixes)


@pytest.mark.parametrize(
    ("verified", "shown"), [("true", "ann@example.org"), ("false", "cognito:ann"), ("", "cognito:ann")]
)
def test_others_are_shown_an_address_that_is_known_to_be_theirs(verified: str, shown: str) -> None:
    assert caller(person(email="ann@example.org", email_verified=verified)).shown == shown


def test_a_person_without_the_claim_and_a_program_see_everything() -> None:
    assert caller(person()) == Caller("cognito:ann", ("",))
    assert caller({"identity": {"userArn": "arn:aws:iam::1:user/x"}}) == Caller("arn:aws:iam::1:user/x", ("",))


@pytest.mark.parametrize("claims", [{"aud": "another"}, {"aud": ""}, {"token_use": "access"}, {"token_use": ""}])
def test_a_token_of_another_client_or_without_the_claim_lets_nobody_in(claims: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        caller(person(**claims))
    assert refused.value.status == 401


@pytest.mark.parametrize(
    "context", [None, [], "x", {}, {"authorizer": None}, {"authorizer": "x"}, {"identity": {"userArn": None}}]
)
def test_without_an_authorizers_word_nobody_is_served(context: Any) -> None:
    with pytest.raises(Refusal) as refused:
        caller(context)
    assert refused.value.status == 401


@pytest.mark.parametrize("header", ["", "Basic dG9rZW4=", "Bearer", "Bearer tokem", "Bearer \udcff"])
def test_another_token_lets_nobody_in(header: str) -> None:
    headers = Headers(raw=[(b"authorization", header.encode("latin-1", "replace"))])
    with pytest.raises(Refusal):
        Tokens({"token": Caller("me")})(headers, {})


def test_a_cursor_is_unreadable_and_good_for_one_purpose() -> None:
    seal = Seal(b"s" * 32)
    cursor = seal.seal({"asset": "secret/key"}, "list")
    assert seal.unseal(cursor, "list") == {"asset": "secret/key"}
    assert "secret" not in cursor
    for wrong, purpose in (
        (cursor, "other"),
        (("A" if cursor[0] != "A" else "B") + cursor[1:], "list"),
        ("", "list"),
    ):
        with pytest.raises(Refusal):
            seal.unseal(wrong, purpose)
    with pytest.raises(Refusal):
        Seal(b"t" * 32).unseal(cursor, "list")


def test_the_application_loads_no_models_side_and_no_pictures() -> None:
    program = "import sys, captions_api.application; print({'openai', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
