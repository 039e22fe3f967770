"""`captions doctor`, `reconcile` and `bucket connect` on the whole stack, as whoever runs it uses them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran
from werkzeug.wrappers import Response

from captions.aws.dynamodb import to_item
from captions.near_duplicates import splits
from captions.records.record import Record
from captions.records.table import Records
from captions_cli import alarms, reconciling, synthetic
from captions_cli.demo import PRICED_MODELS
from captions_cli.errors import CommandError
from captions_cli.local import LocalStack
from captions_cli.local.aws.server import AwsCall, Forward
from captions_cli.local.options import ModelOptions, WorkerOptions
from captions_cli.main import app
from captions_cli.stack import LocalState, Stack, connect_local
from support.pipeline import MEDIA

pytestmark = pytest.mark.deep

ROOT = Path(__file__).parents[2]
Captions = Callable[..., Ran]


class Account:
    """What moto does not have of an account: how many invocations Lambda runs at once, and a clock of its own."""

    def __init__(self) -> None:
        self.concurrency: int | None = None
        self.ahead_seconds = 0.0

    def __call__(self, call: AwsCall, forward: Forward) -> Response:
        if call.service == "lambda" and call.path.endswith("/account-settings") and self.concurrency is not None:
            limit = {"ConcurrentExecutions": self.concurrency, "UnreservedConcurrentExecutions": self.concurrency}
            return Response(json.dumps({"AccountLimit": limit, "AccountUsage": {}}), content_type="application/json")
        answer = forward(call)
        answer.headers["Date"] = formatdate(time.time() + self.ahead_seconds, usegmt=True)
        return answer


ACCOUNT = Account()
POLICY = "/captions/policy"
HOUSE = b"""
[models."House-VL"]
provider = "us"
modalities = ["text", "image"]
context = 32768
"""


def put_overrides(local: LocalStack, *, policy: str = "# as packaged", models: bytes = b"# as packaged") -> None:
    local.client("ssm").put_parameter(Name=POLICY, Value=policy, Type="String", Overwrite=True)
    local.client("s3").create_bucket(Bucket="overrides")
    local.client("s3").put_object(Bucket="overrides", Key="models.toml", Body=models)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    directory = tmp_path_factory.mktemp("operations")
    with LocalStack(
        ROOT / "template.yaml",
        state_dir=directory,
        parameters={**PRICED_MODELS, "PolicyOverride": POLICY, "ModelsOverride": "s3://overrides/models.toml"},
        interceptors=[ACCOUNT],
        model=ModelOptions(latency_scale=0),
        workers=WorkerOptions(schedules=False),
    ) as running:
        put_overrides(running)
        state = {
            "pid": 1,
            "aws_endpoint_url": running.aws_endpoint_url,
            "model_endpoint_url": running.endpoint_url,
            "stack_name": running.stack_name,
            "region": running.region,
            "bucket": running.outputs["MediaBucketName"],
            "started_at": "2026-01-01T00:00:00Z",
        }
        (directory / "stack.json").write_text(json.dumps(state))
        yield running


@pytest.fixture
def stack(local: LocalStack) -> Stack:
    result = json.loads((local.state_dir / "stack.json").read_text())
    return connect_local(LocalState(**result))


@pytest.fixture
def captions(local: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Captions:
    monkeypatch.setenv("CAPTIONS_HOME", str(local.state_dir))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def findings(ran: Ran) -> dict[str, list[dict[str, str]]]:
    by_check: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(ran.stdout):
        by_check.setdefault(finding["check"], []).append(finding)
    return by_check


def record(local: LocalStack, key: str) -> Record | None:
    result = Records(local.client("dynamodb"), local.outputs["CaptionsTableName"])
    return result.get(f"{local.outputs['MediaBucketName']}/{key}")


def until(local: LocalStack, key: str, *states: str) -> Record:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        result = record(local, key)
        if result is not None and result.state in states:
            return result
        time.sleep(0.1)
    pytest.fail(f"{key} is {result.state if result else 'unknown'}, not {states}")


class Silence:
    """The bucket's events are lost while it holds."""

    def __init__(self, local: LocalStack) -> None:
        self._s3, self._bucket = local.client("s3"), local.outputs["MediaBucketName"]

    def __enter__(self) -> None:
        self._s3.put_bucket_notification_configuration(Bucket=self._bucket, NotificationConfiguration={})

    def __exit__(self, *_: object) -> None:
        self._s3.put_bucket_notification_configuration(
            Bucket=self._bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )


class TestDoctor:
    def test_a_sound_stack_has_no_problems_and_says_what_it_cannot_know(self, captions: Captions) -> None:
        ran = captions("doctor", "--output", "json")
        result = findings(ran)
        problems = [finding for each in result.values() for finding in each if finding["level"] == "problem"]
        assert problems == []
        assert ran.exit_code == 0
        sound = (
            "identity",
            "clock",
            "stack",
            "drift",
            "bucket",
            "rule",
            "functions",
            "endpoint",
            "cache",
            "dead letters",
        )
        for check in sound:
            assert {finding["level"] for finding in result[check]} == {"ok"}, result[check]
        # The AWS stand-in does not simulate policies: that is said, not passed over.
        assert result["permissions"][0]["level"] == "unknown"
        assert "cannot be asked" in result["permissions"][0]["message"]

    def test_a_cache_that_split_is_told_with_the_pictures_and_the_prompts(
        self, captions: Captions, local: LocalStack
    ) -> None:
        table, now = local.outputs["FingerprintsTableName"], time.time()
        later = {"expires_at": int(now) + 3600}
        claims = [{"pk": f"c#{id_}", "sk": "claim", "state": "READY", **later} for id_ in ("a", "b")]
        twins = {"pk": splits.TWINS, "sk": "a#b", "assets": ["bucket/a.jpg", "bucket/b.jpg"], "seen_at": now, **later}
        versions = {"pk": splits.VERSIONS, "sk": "caption", "v#caption-1": now, "v#caption-2": now - 9, **later}
        for item in (*claims, twins, versions):
            local.client("dynamodb").put_item(TableName=table, Item=to_item(item))
        try:
            result = findings(captions("doctor", "--output", "json"))["cache"]
        finally:
            for item in (*claims, twins, versions):
                key = to_item({name: item[name] for name in ("pk", "sk")})
                local.client("dynamodb").delete_item(TableName=table, Key=key)
        assert [finding["level"] for finding in result] == ["warning", "warning"]
        assert "bucket/a.jpg and bucket/b.jpg" in result[0]["message"]
        assert "caption was asked with caption-1 and caption-2" in result[1]["message"]

    def test_a_bucket_that_tells_nobody_and_a_rule_that_is_off_are_found(
        self, captions: Captions, local: LocalStack, stack: Stack
    ) -> None:
        from captions_cli import drift

        rule = drift.resources(stack, "AWS::Events::Rule")["UploadsRule"]
        local.client("events").disable_rule(Name=rule)
        try:
            with Silence(local):
                ran = captions("doctor", "--output", "json")
        finally:
            local.client("events").enable_rule(Name=rule)
        result = findings(ran)
        assert ran.exit_code == 1
        assert result["bucket"][0]["level"] == "problem"
        assert "captions bucket connect" in result["bucket"][0]["remedy"]
        assert result["rule"][0]["message"].endswith("is DISABLED")
        assert {finding["level"] for finding in result["drift"]} == {"problem"}
        assert any("UploadsRule" in finding["message"] for finding in result["drift"])

    def test_overrides_that_are_broken_or_gone_are_found_and_the_rest_is_examined(
        self, captions: Captions, local: LocalStack
    ) -> None:
        try:
            put_overrides(local, policy='[tiers.easy]\nmodels = ["GPT-5x"]')
            (item,) = findings(captions("doctor", "--output", "json"))["overrides"]
            assert (item["level"], "tiers.easy.models.0" in item["message"]) == ("problem", True)
            put_overrides(local, policy='[tiers.easy]\nmodels = ["House-VL"]', models=HOUSE)
            (item,) = findings(captions("doctor", "--output", "json"))["overrides"]
            assert item["level"] == "ok", item
            local.client("ssm").delete_parameter(Name=POLICY)
            local.client("s3").put_object(Bucket="overrides", Key="models.toml", Body=b"models = [")
            ran = captions("doctor", "--output", "json")
        finally:
            put_overrides(local)
        result = findings(ran)
        assert ran.exit_code == 1
        assert [finding["level"] for finding in result["overrides"]] == ["problem", "problem"]
        assert "s3://overrides/models.toml" in result["overrides"][0]["message"]
        assert POLICY in result["overrides"][1]["message"]
        # The others go by what the functions fall back on.
        assert {finding["level"] for finding in result["endpoint"]} == {"ok"}
        assert result["alarms"]

    def test_a_new_account_and_a_clock_that_is_off_are_found(
        self, captions: Captions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ACCOUNT, "concurrency", 10)
        monkeypatch.setattr(ACCOUNT, "ahead_seconds", 400.0)
        result = findings(captions("doctor", "--output", "json"))
        assert result["concurrency"][0]["level"] == "problem"
        assert "request-service-quota-increase" in result["concurrency"][0]["remedy"]
        assert result["clock"][0]["level"] == "problem"
        monkeypatch.setattr(ACCOUNT, "concurrency", 1000)
        monkeypatch.setattr(ACCOUNT, "ahead_seconds", 60.0)
        result = findings(captions("doctor", "--output", "json"))
        assert (result["concurrency"][0]["level"], result["clock"][0]["level"]) == ("ok", "warning")

    def test_a_key_that_nobody_put_there_a_dead_letter_and_an_endpoint_that_is_away_are_found(
        self, captions: Captions, local: LocalStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secrets, sqs = local.client("secretsmanager"), local.client("sqs")
        arn, dead = local.outputs["EndpointSecretArn"], local.outputs["ImageDeadLetterQueueUrl"]
        before = secrets.get_secret_value(SecretId=arn)["SecretString"]
        secrets.put_secret_value(SecretId=arn, SecretString="unset")
        sqs.send_message(QueueUrl=dead, MessageBody="{}")
        monkeypatch.setenv("CAPTIONS_ENDPOINT_URL", "http://127.0.0.1:9/v1")
        try:
            ran = captions("doctor", "--output", "json")
        finally:
            secrets.put_secret_value(SecretId=arn, SecretString=before)
            sqs.purge_queue(QueueUrl=dead)
        result = findings(ran)
        assert ran.exit_code == 1
        assert [finding["level"] for finding in result["endpoint"]] == ["problem", "problem"]
        assert "put-secret-value" in result["endpoint"][0]["remedy"]
        assert "cannot be reached" in result["endpoint"][1]["message"]
        assert "captions redrive" in result["dead letters"][0]["remedy"]

    def test_a_model_that_no_catalogue_has_is_named(self, captions: Captions, monkeypatch: pytest.MonkeyPatch) -> None:
        given = vars(Stack)["parameters"].fget
        monkeypatch.setattr(Stack, "parameters", property(lambda stack: {**given(stack), "ImageModels": "GPT-99"}))

        result = findings(captions("doctor", "--output", "json"))
        assert result["endpoint"][0]["level"] == "problem"
        assert "the catalogue has no model GPT-99: nothing is asked of it" in result["endpoint"][0]["message"]


class TestStatus:
    def test_the_alarms_that_ring_are_shown(self, captions: Captions, local: LocalStack, stack: Stack) -> None:
        own = alarms.names(stack)
        result = json.loads(captions("status", "--output", "json").stdout)["alarms"]
        assert result == {"all": len(own), "ringing": [], "why": None}
        if own:
            cloudwatch = local.client("cloudwatch")
            cloudwatch.set_alarm_state(AlarmName=own[0], StateValue="ALARM", StateReason="as the test wants it")
            try:
                assert f"in ALARM: {own[0]}" in captions("status").stderr
            finally:
                cloudwatch.set_alarm_state(AlarmName=own[0], StateValue="OK", StateReason="as the test wants it")


class TestReconcile:
    def test_what_the_bucket_never_told_is_found_sent_once_and_captioned(
        self, captions: Captions, local: LocalStack
    ) -> None:
        s3, bucket = local.client("s3"), local.outputs["MediaBucketName"]
        photo = (MEDIA / "perched-osprey.jpg").read_bytes()
        for key in ("told/known.jpg", "told/replaced.jpg", "told/deleted.jpg"):
            s3.put_object(Bucket=bucket, Key=key, Body=photo)
        for key in ("told/known.jpg", "told/replaced.jpg", "told/deleted.jpg"):
            until(local, key, "captioned")
        with Silence(local):
            s3.put_object(Bucket=bucket, Key="told/missing ö+.jpg", Body=(MEDIA / "tea-gardens.jpg").read_bytes())
            s3.put_object(Bucket=bucket, Key="told/replaced.jpg", Body=(MEDIA / "casa-mila.jpg").read_bytes())
            s3.delete_object(Bucket=bucket, Key="told/deleted.jpg")
        seen = ("reconcile", "--prefix", "told/", "--output", "json")

        young = json.loads(captions(*seen, "--dry-run").stdout)
        assert (young["recent"], young["lost"]) == (3, {"missing": 0, "replaced": 0, "deleted": 0})
        looked = json.loads(captions(*seen, "--dry-run", "--older-than", "0").stdout)
        assert looked["lost"] == {"missing": 1, "replaced": 1, "deleted": 1}
        assert (looked["listed"], looked["in_order"], looked["sent"]) == (4, 1, 0)
        assert float(looked["estimated_cost"]) == pytest.approx(2 * float(looked["average_cost"]))
        assert record(local, "told/missing ö+.jpg") is None
        assert captions(*seen, "--bulk").exit_code == 2  # this stack has no bulk lane

        sent = json.loads(captions(*seen, "--older-than", "0").stdout)
        assert sent["sent"] == 3
        assert until(local, "told/missing ö+.jpg", "captioned").source == "model"
        until(local, "told/deleted.jpg", "deleted")
        assert local.wait_idle(60)
        replaced = until(local, "told/replaced.jpg", "captioned")
        newest = s3.head_object(Bucket=bucket, Key="told/replaced.jpg")["VersionId"]
        assert replaced.version_id == newest
        again = json.loads(captions(*seen, "--older-than", "0").stdout)
        assert (again["in_order"], again["sent"]) == (4, 0)

    def test_what_s3_tells_later_takes_the_place_of_what_was_made_up(self, local: LocalStack) -> None:
        s3, bucket = local.client("s3"), local.outputs["MediaBucketName"]
        s3.put_object(Bucket=bucket, Key="order/a.jpg", Body=(MEDIA / "roman-colosseum.jpg").read_bytes())
        first = until(local, "order/a.jpg", "captioned")
        made = reconciling.successor(first.sequencer)
        s3.put_object(Bucket=bucket, Key="order/a.jpg", Body=(MEDIA / "singaporean-cityscape.jpg").read_bytes())
        assert local.wait_idle(60)
        later = until(local, "order/a.jpg", "captioned")
        assert first.sequencer < made < later.sequencer

    def test_no_more_is_sent_than_may_be_spent(self, captions: Captions, local: LocalStack) -> None:
        s3, bucket = local.client("s3"), local.outputs["MediaBucketName"]
        s3.put_object(Bucket=bucket, Key="spent/known.jpg", Body=(MEDIA / "code-screenshot.png").read_bytes())
        until(local, "spent/known.jpg", "captioned")
        with Silence(local):
            for number in range(3):
                s3.put_object(Bucket=bucket, Key=f"spent/{number}.txt", Body=f"{number}".encode())
        seen = ("reconcile", "--prefix", "spent/", "--older-than", "0", "--output", "json")
        each = float(json.loads(captions(*seen, "--dry-run").stdout)["average_cost"])
        ran = json.loads(captions(*seen, "--max-cost", f"{each * 2.5:.9f}").stdout)
        assert ran["sent"] == 2
        assert json.loads(captions(*seen, "--limit", "5").stdout)["sent"] in {1, 3}  # as far as the first have come


class TestBucketConnect:
    @pytest.fixture
    def existing(self, local: LocalStack) -> tuple[str, dict[str, Any]]:
        """A bucket of somebody else's whose uploads go to a queue of theirs."""
        s3, sqs = local.client("s3"), local.client("sqs")
        bucket = f"existing-{time.monotonic_ns()}"
        s3.create_bucket(Bucket=bucket)
        url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        theirs = {
            "QueueConfigurations": [
                {
                    "Id": "theirs",
                    "QueueArn": arn,
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}},
                }
            ]
        }
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=theirs)
        return bucket, s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]

    def test_eventbridge_joins_the_other_notifications_once(
        self, captions: Captions, local: LocalStack, existing: tuple[str, Any]
    ) -> None:
        bucket, theirs = existing
        s3 = local.client("s3")
        looked = captions("bucket", "connect", bucket, "--dry-run", "--output", "json")
        assert json.loads(looked.stdout)["changed"] is True
        assert "EventBridgeConfiguration" not in s3.get_bucket_notification_configuration(Bucket=bucket)

        ran = captions("bucket", "connect", bucket)
        assert ran.exit_code == 0, ran.output
        assert "prefix in/" in ran.stderr
        after = s3.get_bucket_notification_configuration(Bucket=bucket)
        assert "EventBridgeConfiguration" in after
        assert after["QueueConfigurations"] == theirs
        again = json.loads(captions("bucket", "connect", bucket, "--output", "json").stdout)
        assert again["changed"] is False

    def test_a_bucket_that_is_not_there_is_an_error_in_one_line(self, captions: Captions) -> None:
        ran = captions("bucket", "connect", "nobodys-bucket-at-all")
        assert ran.exit_code == 5
        assert "NoSuchBucket" in ran.stderr


class TestSyntheticUpload:
    def test_it_is_captioned_by_a_model_and_removed(self, local: LocalStack, stack: Stack) -> None:
        assert synthetic.check(stack, 60) == PRICED_MODELS["ImageModels"].split(",")[0]
        left = local.client("s3").list_objects_v2(Bucket=stack.bucket, Prefix=synthetic.PREFIX)
        assert left["KeyCount"] == 0

    def test_a_stack_that_notices_nothing_fails_it(self, local: LocalStack, stack: Stack) -> None:
        with Silence(local), pytest.raises(CommandError, match="not seen by the pipeline"):
            synthetic.check(stack, 1)
