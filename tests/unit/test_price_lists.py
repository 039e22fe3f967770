"""Prices are taken from an endpoint's list only where they can be prices, in whatever documented shape they come."""

import json
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from moto import mock_aws

from captions.gateway.catalogue import load
from captions_cli import doctor, setting_prices
from captions_cli.catalogue_comparison import compare_with_endpoint
from captions_cli.errors import CommandError
from captions_cli.price_lists import Price, prices
from captions_cli.stack import Stack
from support.serving import serving
from unit.test_cli_endpoint_models import Server

VL = "Qwen/Qwen3-VL-32B-Instruct"
TODAY = date(2026, 11, 29)
SHAPES: dict[str, dict[str, Any]] = {
    "OpenRouter": {"pricing": {"prompt": "0.00000015", "completion": "0.0000006", "request": "0", "image": "0"}},
    "Together": {"pricing": {"hourly": 0, "input": 0.15, "output": 0.6, "base": 0, "finetune": 0}},
    "Vercel": {"pricing": {"input": "0.00000015", "output": "0.0000006"}},
    "DeepInfra": {"metadata": {"pricing": {"input_tokens": 0.15, "output_tokens": 0.6}}},
    "LiteLLM": {"model_info": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07}},
    "Novita": {"input_token_price_per_m": 1500, "output_token_price_per_m": 6000},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_documented_shape_is_read_in_dollars_per_million_tokens(shape: str) -> None:
    name = "model_name" if shape == "LiteLLM" else "id"
    listed: list[Any] = [{name: VL} | SHAPES[shape]]
    payload: object = listed if shape == "Together" else {"object": "list", "data": listed}
    assert prices(payload) == {VL: Price(Decimal("0.15"), Decimal("0.6"))}


HOSTILE = [
    -1, "-0.1", 0, "0", "0.0", True, None, [], {}, "free", "", float("nan"), "NaN", "Infinity", "1e-400", "1e999999",
    "1e99999999999999999999", "9" * 10_000, 10**400, 2, "2", 1e300, "0.00000000001",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:20])
def test_what_can_be_no_price_per_token_is_refused(value: object) -> None:
    entry = {"id": VL, "pricing": {"prompt": value, "completion": "0.0000006"}}
    assert prices({"data": [entry]})[VL] == Price(None, Decimal("0.6"))
    (change,) = compare_with_endpoint(load(), {"data": [entry]}).price_changes
    assert (change.what, change.endpoint) == ("output", Decimal("0.6"))


@pytest.mark.parametrize("value", [-1, 0, 0.0000001, 1e9, float("inf"), "1e999999"])
def test_what_can_be_no_price_per_million_is_refused(value: object) -> None:
    assert prices([{"id": VL, "pricing": {"input": value}}]) == {}


def test_other_currencies_and_models_that_cost_by_the_picture_are_left_out() -> None:
    for more in ({"currency": "IDR"}, {"image": "0.0036"}, {"request": "0.01"}):
        assert prices({"data": [{"id": VL, "pricing": SHAPES["OpenRouter"]["pricing"] | more}]}) == {}


@pytest.mark.parametrize(
    "payload", [None, 7, {"data": 7}, {"data": [7, None, {"id": 7}, {"pricing": 7}, {"id": VL, "pricing": [1]}]}]
)
def test_what_is_no_list_has_no_prices(payload: object) -> None:
    assert prices(payload) == {}


# -- writing them

DOCUMENT = f"""# ours
[models."{VL}"]
input_price = 1.0   # a guess
context = 64_000

[endpoints."http://o/v1"]
free = false
"""


def test_prices_are_written_with_their_day_and_what_else_stands_there_stays() -> None:
    given = {VL: Price(Decimal("0.15"), Decimal("0.6")), "GLM-4.6V": Price(Decimal("0.3"))}
    changed = setting_prices.with_prices(DOCUMENT, given, TODAY)

    model = load(changed).model(VL)
    assert (model.input_price, model.output_price, model.context) == (Decimal("0.15"), Decimal("0.6"), 64_000)
    assert (model.priced, model.priced_on) == (True, TODAY)
    assert load(changed).model("GLM-4.6V").input_price == Decimal("0.3")
    assert load(changed).endpoint("http://o/v1").free is False
    assert changed.startswith("# ours\n")
    assert setting_prices.with_prices(changed, given, TODAY) == changed
    assert load(setting_prices.with_prices("", given, TODAY)).model(VL).priced_on == TODAY


@pytest.mark.parametrize(
    "text",
    [
        f'models = {{ "{VL}" = {{ input_price = 1.0 }} }}\n',
        f'[models]\n"{VL}".input_price = 1.0\n',
        f"[models]\n'{VL}' = {{ context = 9 }}\n",
    ],
)
def test_a_document_that_cannot_be_changed_line_by_line_is_left_alone(text: str) -> None:
    with pytest.raises(CommandError, match="by hand"):
        setting_prices.with_prices(text, {VL: Price(Decimal(1))}, TODAY)


def test_prices_are_given_as_model_input_output() -> None:
    catalogue = load()
    assert setting_prices.parse([f"{VL}=0.15,0.6", "GLM-4.6V=0.3,"], catalogue) == {
        VL: Price(Decimal("0.15"), Decimal("0.6")),
        "GLM-4.6V": Price(Decimal("0.3")),
    }
    for wrong in (VL, f"{VL}=", f"{VL}=,", f"{VL}=1", f"{VL}=-1,2", f"{VL}=NaN,1", f"{VL}=1e9,1", "nobody=1,2"):
        with pytest.raises(CommandError):
            setting_prices.parse([wrong], catalogue)


@pytest.mark.parametrize("where", ["/captions/models", "s3://overrides/models.toml"])
def test_they_go_to_where_the_functions_read_them(where: str) -> None:
    with mock_aws():

        def client(service: str) -> Any:
            keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
            return boto3.client(service, "us-east-1", **keys)  # type: ignore[call-overload] # named at run time

        client("s3").create_bucket(Bucket="overrides")
        client("s3").put_object(Bucket="overrides", Key="models.toml", Body=DOCUMENT.encode())
        client("ssm").put_parameter(Name="/captions/models", Value=DOCUMENT, Type="String")
        stack = cast(Stack, SimpleNamespace(parameters={"ModelsOverride": where}, client=client))

        assert setting_prices.write(stack, {VL: Price(Decimal("0.15"), Decimal("0.6"))}, TODAY) == where

        stored = client("s3").get_object(Bucket="overrides", Key="models.toml")["Body"].read().decode()
        if where.startswith("/"):
            stored = client("ssm").get_parameter(Name=where)["Parameter"]["Value"]
        assert load(stored).model(VL).priced_on == TODAY


def test_a_stack_without_an_override_is_told_what_to_put_into_one() -> None:
    with pytest.raises(CommandError, match=r"input_price = 0.15") as caught:
        setting_prices.write(cast(Stack, SimpleNamespace(parameters={})), {VL: Price(Decimal("0.15"))}, TODAY)
    assert "ModelsOverride" in str(caught.value)

    # -- asking for them


def stack_at(endpoint_url: str) -> Stack:
    return cast(Stack, SimpleNamespace(parameters={}, local_model_endpoint_url=endpoint_url, client=None, where="it"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CAPTIONS_ENDPOINT_KEY", "k")

    def ask(listed: object, infos: object = None) -> tuple[str, str, str]:
        with serving(Server()) as server:
            server.listed = json.dumps(listed).encode()
            server.pages = {"/v1/model/info": json.dumps(infos).encode()}
            (result,) = doctor.without_price(stack_at(server.url), load())
        return result

    return ask


def test_doctor_names_the_models_in_use_whose_price_is_missing(asked: Any) -> None:
    level, message, remedy = asked({"data": [{"id": VL}]})
    assert (level, VL in message, "GPT-4o" in message) == ("warning", True, False)
    assert "captions models --set-price" in remedy
    assert "--take-prices" not in remedy


def test_doctor_says_where_the_endpoint_itself_lists_them(asked: Any) -> None:
    _, _, remedy = asked([{"id": VL} | SHAPES["Together"]])
    assert f"--take-prices writes what the endpoint lists of {VL}" in remedy


def test_doctor_finds_the_prices_where_litellms_proxy_has_them(asked: Any) -> None:
    names, infos = {"data": [{"id": VL}]}, {"data": [{"model_name": VL} | SHAPES["LiteLLM"]]}
    _, _, remedy = asked(names, infos)
    assert f"--take-prices writes what the endpoint lists of {VL}" in remedy


def test_doctor_is_content_where_every_price_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONS_ENDPOINT_URL", "http://o/v1")
    free = load('[endpoints."http://o/v1"]\nfree = true\n')
    (result,) = doctor.without_price(stack_at(""), free)
    assert result[0] == "ok"
