"""The environments of all functions but dedupe, as typed models that are read once."""

from decimal import Decimal
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from captions.config.environment import FunctionEnvironment, IntakeSettings, RoutingSettings, Settings


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _pairs(value: object) -> object:
    if isinstance(value, str):
        pairs = (part.strip().rpartition("=") for part in value.split(",") if part.strip())
        return {name: amount for name, _, amount in pairs}
    return value


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]


class TracedSettings(FunctionEnvironment):
    """Every function that calls models."""

    otlp_endpoint: str | None = None
    """Where spans and metrics of model calls are sent: a collector that speaks OTLP over HTTP, without `/v1/traces`."""


class WorkerSettings(TracedSettings, RoutingSettings):
    """The caption and transcribe functions."""

    control_table: str
    max_image_pixels: int = Field(default=50_000_000, gt=0)
    endpoint_urls: CommaSeparated = Field(min_length=1)
    """OpenAI-compatible base URLs, in the order of failover."""
    endpoint_secret_arn: str
    """Secrets Manager: the key itself, or JSON of base URL (or `default`) to key."""
    image_models: CommaSeparated = ()
    audio_models: CommaSeparated = ()
    daily_budget_dollars: Decimal | None = Field(default=None, gt=0)
    """Dollars all models together may cost in one day (UTC); none given: no limit."""
    prefix_budgets: Annotated[dict[str, Annotated[Decimal, Field(gt=0)]], BeforeValidator(_pairs)] = Field(
        default_factory=dict
    )
    """Dollars a day by key prefix, such as `photos/=5,scans/=0.50`."""
    models_override: str | None = None
    """An SSM parameter's name, or s3://BUCKET/KEY: TOML that is laid over the packaged catalogue."""


class BulkSettings(WorkerSettings):
    """The bulk function."""

    bulk_bucket: str
    """Where the lines of batches are kept until their batch has ended."""
    bulk_gather_seconds: float = Field(default=600, ge=0)
    """How long lines are gathered before a batch is made of them."""
    bulk_max_requests: int = Field(default=10_000, ge=1, le=50_000)
    bulk_max_bytes: int = Field(default=95_000_000, ge=1_000_000, le=200_000_000)
    """Of one batch's file. OpenAI takes 200 MB, others 100."""
    bulk_patience_seconds: float = Field(default=93_600, ge=3_600)
    """After how long what no batch has answered goes the ordinary way."""


class SweepSettings(Settings):
    """The sweep function."""

    control_table: str | None = None

    rule_dead_letter_queue_url: str | None = None
    """Events that EventBridge could not deliver; the sweep puts them back on the uploads queue."""
    alarm_topic_arn: str | None = None
    """Where mails go that name what people edit too often; None: nowhere."""
    runbook_url: str = "docs/runbooks"
    """Where the pages of docs/runbooks are found."""


class ApiSettings(WorkerSettings, IntakeSettings):
    """The API."""

    media_bucket: str
    api_table: str
    """Where the API keeps what is its own: thumbnails, marks of who has what open, answers to repeated writes."""
    api_authorizer: Literal["token", "iam", "cognito"] = "token"
    """Who says who is calling: API Gateway's authorizer, or, on one machine, the token in the printed URL."""
    api_token: str | None = None
    sign_in_client_id: str | None = None
    """With `cognito`: the user pool's app client, whose ID tokens alone are taken."""
    sign_in_issuer: str | None = None
    """As ID tokens name the user pool (`iss`)."""
    sign_in_url: str | None = None
    """Where the user pool has its sign-in page and its endpoints of OAuth."""
    uploads_dead_letter_queue_url: str | None = None
    image_dead_letter_queue_url: str | None = None
    audio_dead_letter_queue_url: str | None = None
    console_dir: str | None = None
    """Where the built console lies; by default beside the API's package."""
    stack_name: str | None = None
    """What the names of the stack's alarms begin with."""
    search_function: str | None = None
    """Name of the function that answers searches; empty where there is none."""
    aws_endpoint_url: str | None = None
    """Another endpoint for every AWS service, which browsers must be let to as well."""

    @model_validator(mode="after")
    def _people_have_a_pool(self) -> Self:
        if self.api_authorizer == "cognito" and not (
            self.sign_in_client_id and self.sign_in_issuer and self.sign_in_url
        ):
            raise ValueError("cognito needs sign_in_client_id, sign_in_issuer and sign_in_url")
        return self


class SearchSettings(TracedSettings):
    """The search function."""

    captions_table: str
    search_bucket: str
    """Where the words' index is."""
    search_vectors_arn: str | None = None
    """The index of S3 Vectors where captions' vectors are; None: captions are searched by their words alone."""
    control_table: str | None = None
    endpoint_urls: CommaSeparated = ()
    """OpenAI-compatible base URLs that embeddings are asked of, in the order of failover."""
    endpoint_secret_arn: str | None = None
    embedding_model: str | None = None
    embedding_dimensions: int = Field(default=1_536, ge=1, le=4_096)
    embedding_price: Decimal | None = Field(default=None, ge=0)
    """Dollars per million tokens; None: not known, and costs are given in tokens."""
    daily_budget_dollars: Decimal | None = Field(default=None, gt=0)


class WebhookSettings(FunctionEnvironment):
    """The webhooks function."""

    control_table: str
    webhooks_queue_url: str
    webhooks_dead_letter_queue_url: str
    webhooks: str
    """An SSM parameter's name, or s3://BUCKET/KEY: TOML of the endpoints."""
    webhook_secrets_arn: str
    """Secrets Manager: JSON of an endpoint's name to its secret, or to two."""
    aws_endpoint_url: str = ""
    """A stand-in for AWS."""

    @property
    def loopback(self) -> bool:
        """Whether endpoints may be on this machine: where AWS itself is played by it."""
        return (urlsplit(self.aws_endpoint_url).hostname or "") in ("127.0.0.1", "::1", "localhost")


class WriteBackSettings(FunctionEnvironment):
    """The write-back function."""

    captions_table: str
    policy_override: str | None = None
    """An SSM parameter's name, or s3://BUCKET/KEY: TOML that is laid over the policy, with the rules of write-back."""
    copies_bucket: str | None = None
    """Where copies are put; None: into the bucket of the media."""
