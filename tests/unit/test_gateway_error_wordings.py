"""How servers say the same things: each is classed by what follows from it."""

import pytest

from captions.gateway.error_class import ErrorClass
from captions.gateway.errors import classify_error_object, classify_status

TOO_LARGE = [
    (400, {"error": {"type": "exceed_context_size_error", "message": "the request needs 9000 tokens of 4096"}}),
    (400, {"error": {"code": "1261", "message": "Prompt 超长"}}),
    (
        400,
        [{"error": {"code": 400, "message": "The input token count (9) exceeds the maximum number of tokens allowed"}}],
    ),
    (400, {"error": {"message": "prompt length and `max_tokens` exceed context limit: 3 + 4 > 5"}}),
    (400, {"message": "The prompt (9 tokens) is longer than the model's context length (4 tokens)."}),
    (400, {"message": "Multimodal prompt is too long after expanding"}),
    (422, {"error": {"message": "`inputs` tokens + `max_new_tokens` must be <= 10. Given: 9"}}),
    (400, {"detail": "the input exceeds the maximum input length of the model"}),
    (400, {"message": "Request body is too large"}),
    (413, "<html><title>Request Entity Too Large</title></html>"),
    (400, {"error": {"message": "Your request exceeded model token limit: 10"}}),
    (400, {"error": {"message": "image exceeds 5 MB maximum: 6 bytes > 5 bytes"}}),
    (400, {"error": {"message": "the input token count is 9 but model only supports up to 8"}}),
]
ACCOUNT = [
    (429, {"error": {"code": "1113", "message": "Please recharge."}}),
    (429, {"error": {"message": "您的账户已欠费"}}),
    (429, {"error": {"message": "You exceeded your current quota, please check your plan"}}),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    (400, {"error": {"message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}),
    (402, {"error": {"message": "this request needs more credits"}}),
    (403, "<html>Just a moment</html>"),
    (429, {"error": {"message": "Budget has been exceeded! Current cost: 2"}}),
    (429, {"error": {"message": "You have reached your monthly spending limit"}}),
    (400, {"error": {"message": "You have reached your specified API usage limits."}}),
]
REFUSED = [
    (400, {"error": {"code": "1301", "message": "..."}, "contentFilter": [{"level": 1}]}),
    (400, {"error": {"code": 400, "message": "The answer was blocked due to safety settings"}}),
    (403, {"error": {"message": "Your input was flagged by moderation"}}),
    (400, {"error": {"message": "Input data may contain inappropriate content."}}),
    (400, {"error": {"code": "content_filter", "status": 400, "message": "..."}}),
    (400, {"error": {"message": "Content Exists Risk"}}),
    (403, {"error": {"message": "this model requires moderation and your input was flagged"}}),
    (403, {"error": {"message": "Content violates usage guidelines."}}),
]
UNAVAILABLE = [
    (400, {"error": {"message": "some/thing is not a valid model ID", "code": 400}}),
    (400, {"error": {"message": "The model `x` has been decommissioned and is no longer supported."}}),
    (404, {"error": {"message": "The model `x` does not exist."}}),
    (400, {"error": {"code": "1211", "message": "模型不存在"}}),
    (403, {"error": {"code": "model_not_available", "message": "model x is not available in your plan"}}),
    (410, {}),
    (400, {"error": {"message": "The provided model identifier is invalid."}}),
    (403, {"error": {"message": "No access to model `x`", "code": "model_not_found"}}),
    (403, {"error": {"message": "You don't have access to the model with this ID."}}),
]
LATER = [
    (429, {"error": {"message": "Too many requests, slow down"}}),
    (429, {"error": {"code": "rate_limit_exceeded", "message": "Limit 10 tokens per minute for this model"}}),
    (503, {"message": "The request queue is full.", "type": "SERVICE_UNAVAILABLE", "code": 503}),
    (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}),
    (524, "<html><title>A timeout occurred</title></html>"),
    (500, {"error": {"message": "billing service is down"}}),
    (
        429,
        {"error": {"message": "Rate limit reached; more is sold at /settings/billing", "code": "rate_limit_exceeded"}},
    ),
    (429, {"error": {"message": "You exceeded your current quota. Please retry in 21.5s."}}),
    (429, {"error": {"message": "Too many requests; see the billing page"}}),
]
OURS = [
    (400, {"error": {"message": "Invalid value for 'temperature': must be at most 2"}}),
    (400, {"error": {"message": "'messages' must contain at least one message"}}),
    (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}),
    (400, {"error": {"code": {"a": 1}, "message": {"b": 2}}}),
    (400, "<html>Your request broke our usage policy of headers</html>"),
    (400, None),
]


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        *((*case, ErrorClass.TOO_LARGE) for case in TOO_LARGE),
        *((*case, ErrorClass.ACCOUNT) for case in ACCOUNT),
        *((*case, ErrorClass.REFUSED) for case in REFUSED),
        *((*case, ErrorClass.UNAVAILABLE) for case in UNAVAILABLE),
        *((*case, ErrorClass.OURS) for case in OURS),
    ],
)
def test_an_error_is_classed_by_its_code_or_its_words(status: int, body: object, wanted: ErrorClass) -> None:
    assert classify_status(status, body) is wanted


@pytest.mark.parametrize(("status", "body"), LATER)
def test_what_may_pass_is_tried_again(status: int, body: object) -> None:
    assert classify_status(status, body) in (ErrorClass.RATE_LIMITED, ErrorClass.SERVER_ERROR)


@pytest.mark.parametrize("status_less", TOO_LARGE[:7] + ACCOUNT[:2] + REFUSED[1:2])
def test_an_error_inside_an_answer_is_classed_alike(status_less: tuple[int, object]) -> None:
    status, body = status_less
    assert classify_error_object(body)[0] is classify_status(status, body)
