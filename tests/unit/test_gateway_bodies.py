"""Each medium the way the model at hand takes it, and only models that can do the job."""

from base64 import b64decode
from typing import Any

import pytest

from captions.gateway import (
    AccountProblem,
    Endpoint,
    ErrorClass,
    Exhausted,
    GatewayError,
    Media,
    NoCapableModel,
    Refused,
    Request,
    Unacceptable,
)
from captions.gateway.catalogue import load
from captions.gateway.errors import AttemptFailed
from captions.gateway.fallback import Plan
from captions.gateway.requests import MessageParts

OMNI = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
DIALECTS = load("\n".join(f'[endpoints."http://{name}/v1"]\ndialect = "{name}"' for name in load().dialects))
PICTURE = Media("image", "image/jpeg", b"\xff\xd8" * 300)
SOUND = Media("audio", "audio/mpeg", b"ID3" * 300, duration_s=12.0)


def ask(*media: Media, **changes: Any) -> Request:
    return Request(**({"instructions": "Be brief.", "text": "What is it?", "media": media} | changes))


def body(request: Request, name: str, endpoint: str = "http://openai/v1") -> dict[str, Any]:
    served = DIALECTS.served(name, endpoint)
    assert served is not None
    model, wire_name = served
    return MessageParts(request).body(
        model, wire_name, max_tokens=request.max_tokens, stream=model.streaming_only, seconds=30.0
    )


def media_part(request: Request, name: str, endpoint: str = "http://openai/v1") -> Any:
    return body(request, name, endpoint)["messages"][1]["content"][0]


def test_a_picture_goes_as_data_uri_before_the_question() -> None:
    sent = body(ask(PICTURE), "GPT-4o")

    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    picture, question = sent["messages"][1]["content"]
    head, _, data = picture["image_url"]["url"].partition(",")
    assert (picture["type"], head) == ("image_url", "data:image/jpeg;base64")
    assert b64decode(data) == PICTURE.data
    assert question == {"type": "text", "text": "What is it?"}


SCHEMA = {"type": "json_schema", "json_schema": {"name": "it", "schema": {"type": "object"}}}
ANY_OBJECT = {"type": "json_object"}


@pytest.mark.parametrize(
    ("model", "endpoint", "wanted", "text", "sent"),
    [
        ("GPT-4o", "http://openai/v1", SCHEMA, "What is it?", SCHEMA),
        ("GPT-4o", "http://openai/v1", ANY_OBJECT, "As JSON, please", ANY_OBJECT),
        ("deepseek-ai/DeepSeek-V4-Flash", "http://openai/v1", SCHEMA, "As JSON, please", ANY_OBJECT),
        ("deepseek-ai/DeepSeek-V4-Flash", "http://openai/v1", SCHEMA, "What is it?", None),
        ("GLM-4.5V", "http://openai/v1", SCHEMA, "As JSON, please", None),
        ("GLM-4.5V", "http://openai/v1", ANY_OBJECT, "As JSON, please", None),
        ("GLM-4.5V", "http://vllm/v1", SCHEMA, "What is it?", SCHEMA),
        ("Qwen/Qwen3-VL-8B-Instruct", "http://ollama/v1", SCHEMA, "What is it?", SCHEMA),
    ],
)
def test_the_wanted_form_is_weakened_to_what_the_model_takes(
    model: str, endpoint: str, wanted: dict[str, Any], text: str, sent: dict[str, Any] | None
) -> None:
    assert body(ask(response_format=wanted, text=text), model, endpoint).get("response_format") == sent


def test_text_alone_goes_as_text_and_n_is_never_sent() -> None:
    sent = body(ask(), "Qwen3-32B")

    assert sent["messages"][1]["content"] == "What is it?"
    assert "n" not in sent
    assert "stream" not in sent


@pytest.mark.parametrize(
    ("dialect", "part"),
    [
        ("openai", {"type": "input_audio", "prefix": "", "format": "mp3"}),
        ("vllm", {"type": "input_audio", "prefix": "", "format": "mp3"}),
        ("dashscope", {"type": "input_audio", "prefix": "data:;base64,", "format": "mp3"}),
        ("sglang", {"type": "audio_url", "prefix": "data:audio/mpeg;base64,"}),
    ],
)
def test_sound_goes_the_way_the_server_takes_it(dialect: str, part: dict[str, str]) -> None:
    sent = media_part(ask(SOUND), OMNI, f"http://{dialect}/v1")

    assert sent["type"] == part["type"]
    inner = sent[part["type"]]
    data = inner["data"] if part["type"] == "input_audio" else inner["url"]
    assert data.startswith(part["prefix"])
    assert b64decode(data.removeprefix(part["prefix"])) == SOUND.data
    assert inner.get("format") == part.get("format")


def test_dashscopes_omni_models_are_streamed_with_usage() -> None:
    sent = body(ask(SOUND), OMNI, "http://dashscope/v1")

    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}


def test_a_link_is_made_only_if_the_data_does_not_fit() -> None:
    made = []

    def link(seconds: float) -> str:
        made.append(seconds)
        return "https://bucket/key?signature"

    small = Media("audio", "audio/mpeg", b"x" * 1_000, url=link)
    large = Media("audio", "audio/mpeg", b"x" * 3_500_000, url=link)

    assert media_part(ask(small), OMNI)["type"] == "input_audio"
    assert made == []
    assert media_part(ask(large), OMNI) == {"type": "audio_url", "audio_url": {"url": "https://bucket/key?signature"}}
    sent = media_part(ask(large), OMNI, "http://dashscope/v1")
    assert sent == {"type": "input_audio", "input_audio": {"data": "https://bucket/key?signature", "format": "mp3"}}
    assert made == [30.0, 30.0], "each attempt has a link of its own, for its own time"


def plan(request: Request, chain: list[str], *endpoints: str) -> Plan:
    urls = endpoints or ("http://openai/v1",)
    return Plan.of(request, chain, [Endpoint(url) for url in urls], DIALECTS.served, MessageParts(request))


def names(plan: Plan) -> list[tuple[str, str]]:
    return [(c.model.name, c.endpoint.base_url.removeprefix("http://").removesuffix("/v1")) for c in plan.in_order()]


def test_models_that_cannot_do_the_job_are_passed_over() -> None:
    assert names(plan(ask(PICTURE), ["Qwen3-32B", "GPT-4o"])) == [("GPT-4o", "openai")]
    assert names(plan(ask(SOUND), ["GPT-4o", OMNI], "http://ollama/v1", "http://openai/v1")) == [(OMNI, "openai")]


def test_a_context_that_is_surely_too_small_is_passed_over() -> None:
    long = ask(PICTURE, text="word " * 45_000)

    assert names(plan(long, ["GLM-4.6V", "GPT-4o"])) == [("GPT-4o", "openai")]


def test_nothing_that_takes_the_medium_and_nothing_that_takes_its_size_are_different_ends() -> None:
    film = Media("video", "video/mp4", b"x")
    huge = Media("image", "image/jpeg", b"x" * 4_000_000)

    with pytest.raises(NoCapableModel, match="video/mp4"):
        plan(ask(film), ["GPT-4o", "GLM-4.6V"])
    with pytest.raises(NoCapableModel, match="image/heic"):
        plan(ask(Media("image", "image/heic", b"x")), ["GPT-4o"])
    with pytest.raises(Unacceptable, match="too large"):
        plan(ask(huge), ["GPT-4o", "GLM-4.6V"])


CHAIN = ["Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-32B-Instruct", "GLM-4.6V", "GPT-4o"]


def fail(plan: Plan, error_class: ErrorClass, **facts: Any) -> str:
    tried = plan.in_order()[0]
    plan.failed(tried, AttemptFailed(error_class, **facts))
    return tried.model.name


@pytest.mark.parametrize("error_class", [ErrorClass.SERVER_ERROR, ErrorClass.TIMEOUT, ErrorClass.REFUSED])
def test_after_a_providers_own_failure_comes_another_provider(error_class: ErrorClass) -> None:
    order = plan(ask(PICTURE), CHAIN)

    fail(order, error_class)

    assert [name for name, _ in names(order)][:2] == ["GLM-4.6V", "GPT-4o"]


def test_after_a_rate_limit_the_chain_goes_on_as_it_stands() -> None:
    order = plan(ask(PICTURE), CHAIN)

    fail(order, ErrorClass.RATE_LIMITED)

    assert names(order)[0][0] == "Qwen/Qwen3-VL-32B-Instruct"


def test_a_model_that_is_missing_or_limited_is_looked_for_at_the_next_endpoint() -> None:
    for error_class in (ErrorClass.UNAVAILABLE, ErrorClass.RATE_LIMITED):
        order = plan(ask(PICTURE), CHAIN, "http://openai/v1", "http://vllm/v1")
        fail(order, error_class)
        assert names(order)[0] == (CHAIN[0], "vllm")


def test_an_endpoint_that_cannot_be_reached_is_left_to_the_last() -> None:
    order = plan(ask(PICTURE), CHAIN[:2], "http://openai/v1", "http://vllm/v1")

    fail(order, ErrorClass.CONNECTION, unreachable=True)

    assert [endpoint for _, endpoint in names(order)] == ["vllm", "vllm", "openai", "openai"]


def test_an_endpoint_that_rejects_the_account_is_out() -> None:
    order = plan(ask(PICTURE), CHAIN, "http://openai/v1", "http://vllm/v1")

    fail(order, ErrorClass.ACCOUNT)

    assert {endpoint for _, endpoint in names(order)} == {"vllm"}


def test_too_large_leaves_only_larger_models() -> None:
    order = plan(ask(PICTURE), CHAIN)

    fail(order, ErrorClass.TOO_LARGE)

    assert [name for name, _ in names(order)] == ["GPT-4o"]


def test_two_models_that_call_the_request_wrong_are_believed() -> None:
    order = plan(ask(PICTURE), CHAIN)

    fail(order, ErrorClass.OURS)
    assert order.in_order()
    fail(order, ErrorClass.OURS)

    assert order.in_order() == []
    assert isinstance(order.last_error(), Unacceptable)


@pytest.mark.parametrize(
    ("error_classes", "error"),
    [
        ([ErrorClass.REFUSED, ErrorClass.REFUSED], Refused),
        ([ErrorClass.REFUSED, ErrorClass.TOO_LARGE], Refused),
        ([ErrorClass.REFUSED, ErrorClass.ACCOUNT], AccountProblem),
        ([ErrorClass.UNAVAILABLE, ErrorClass.UNAVAILABLE], Exhausted),
        ([ErrorClass.UNFIT, ErrorClass.UNFIT], Exhausted),
    ],
)
def test_a_call_without_candidates_ends_with_what_can_still_change(
    error_classes: list[ErrorClass], error: type[GatewayError]
) -> None:
    order = plan(ask(PICTURE), ["GPT-4o", "GLM-4.6V"])

    for error_class in error_classes:
        fail(order, error_class)

    assert order.in_order() == []
    assert isinstance(order.last_error(), error)
