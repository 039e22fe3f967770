"""The environment a function is given."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from captions.config.environment import IntakeSettings
from captions.config.function_environments import WorkerSettings

GIVEN = {
    "CAPTIONS_TABLE": "captions",
    "FINGERPRINTS_TABLE": "fingerprints",
    "CONTROL_TABLE": "control",
    "UPLOADS_QUEUE_URL": "https://queue/uploads",
    "IMAGE_QUEUE_URL": "https://queue/images",
    "AUDIO_QUEUE_URL": "https://queue/audio",
    "EVENT_BUS_NAME": "captions",
    "ENDPOINT_URLS": "https://one/v1, https://two/v1",
    "ENDPOINT_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:key",
    "IMAGE_MODELS": "a,b",
}


def test_lists_are_split_and_the_rest_defaults() -> None:
    settings = WorkerSettings.from_env({**GIVEN, "PATH": "/bin", "LANGUAGE": ""})
    assert settings.endpoint_urls == ("https://one/v1", "https://two/v1")
    assert settings.image_models == ("a", "b")
    assert settings.audio_models == ()
    assert settings.language == "en"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValidationError, match="captions_table"):
        IntakeSettings.from_env({})


@pytest.mark.parametrize(
    ("name", "value"), [("NEAR_DUPLICATES", "sometimes"), ("MAX_IMAGE_BYTES", "0"), ("MAX_IMAGE_PIXELS", "many")]
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name.lower()):
        IntakeSettings.from_env({**GIVEN, name: value})


def test_a_worker_without_an_endpoint_does_not_start() -> None:
    with pytest.raises(ValidationError, match="endpoint_urls"):
        WorkerSettings.from_env({**GIVEN, "ENDPOINT_URLS": " , "})


def test_budgets_are_read_by_prefix() -> None:
    settings = WorkerSettings.from_env({**GIVEN, "PREFIX_BUDGETS": "photos/=5, a=b/=0.50", "DAILY_BUDGET_DOLLARS": "9"})
    assert settings.prefix_budgets == {"photos/": Decimal(5), "a=b/": Decimal("0.50")}
    assert settings.daily_budget_dollars == Decimal(9)


@pytest.mark.parametrize("budgets", ["photos/", "photos/=much", "photos/=0", "photos/=-1"])
def test_a_budget_without_an_amount_is_refused(budgets: str) -> None:
    with pytest.raises(ValidationError, match="prefix_budgets"):
        WorkerSettings.from_env({**GIVEN, "PREFIX_BUDGETS": budgets})
