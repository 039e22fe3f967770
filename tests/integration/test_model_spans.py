"""Model calls as OpenTelemetry: a collector gets a span for each, fallbacks too, and nothing of what was said."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from captions.model_spans import ModelSpans
from captions.search.embeddings import CaptionEmbeddings, SpendingLedger
from captions_cli.local.model_endpoint import LocalEndpoint, embedding
from support.bulk import CATALOGUE, MODEL, bulk_shop, noise
from support.pipeline import Aws, Dedupe
from support.serving import QuietHandler, serving
from support.worker import Workshop


@dataclass
class Collector:
    """What arrived, as the collector's protocol has it; `status` is what it answers."""

    url: str = ""
    status: int = 200
    bodies: list[tuple[str, bytes]] = field(default_factory=list)

    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces"]
        return [span for request in requests for resource in request.resource_spans
                for scope in resource.scope_spans for span in scope.spans]  # fmt: skip

    def metrics(self) -> dict[str, Any]:
        requests = [ExportMetricsServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/metrics"]
        return {metric.name: metric for request in requests for resource in request.resource_metrics
                for scope in resource.scope_metrics for metric in scope.metrics}  # fmt: skip


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            made.bodies.append((self.path, self.body()))
            self.answer(made.status)

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield made


@pytest.fixture
def spans(collector: Collector, shop: Workshop) -> Iterator[ModelSpans]:
    made = ModelSpans(f"{collector.url}/")
    shop.worker.gateway._report = made.add
    yield made
    made.flush()


XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"


def test_a_collector_gets_a_span_for_each_call_fallbacks_too(
    shop: Workshop, spans: ModelSpans, collector: Collector, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", XRAY)
    first, second = shop.worker.settings.image_models[:2]
    shop.endpoint.set_faults([{"fault": "not_found", "model": first}])
    record = shop.captioned("private/holiday.jpg", photo)
    spans.flush()
    assert record.provenance is not None
    attempts = record.provenance.attempts
    assert [attempt["model"] for attempt in attempts] == [first, second]
    sent = collector.spans()
    about = [attributes(span) for span in sent]
    assert [each["gen_ai.request.model"] for each in about] == [first, second]
    assert [span.name for span in sent] == [f"chat {first}", f"chat {second}"]
    assert {span.kind for span in sent} == {Span.SPAN_KIND_CLIENT}
    assert [span.status.code for span in sent] == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
    assert [each.get("error.type") for each in about] == [attempts[0]["outcome"], None]
    answered = about[1]
    assert answered["gen_ai.operation.name"] == "chat"
    assert answered["gen_ai.usage.input_tokens"] == attempts[1]["prompt_tokens"]
    assert answered["gen_ai.usage.output_tokens"] == attempts[1]["completion_tokens"]
    assert answered["gen_ai.response.model"] == record.provenance.reported_model
    assert answered["server.address"] == "127.0.0.1"
    assert {span.trace_id.hex() for span in sent} == {"5759e988bd862e3fe1be46a994272793"}
    assert {span.parent_span_id.hex() for span in sent} == {"53995c3f42cd8ad8"}
    assert sent[1].end_time_unix_nano - sent[1].start_time_unix_nano == attempts[1]["latency_ms"] * 1_000_000

    metrics = collector.metrics()
    points = metrics["gen_ai.client.token.usage"].histogram.data_points
    assert {(attributes(point)["gen_ai.token.type"], point.sum) for point in points} >= {
        ("input", attempts[1]["prompt_tokens"]),
        ("output", attempts[1]["completion_tokens"]),
    }
    assert sum(point.count for point in metrics["gen_ai.client.operation.duration"].histogram.data_points) == 2

    assert record.result is not None
    everything = b"".join(body for _, body in collector.bodies)
    for secret in (record.result.text, "private/holiday", "Bearer", *record.result.tags[:1]):
        assert secret.encode() not in everything


def test_a_collector_gets_a_span_for_each_call_for_embeddings_those_that_fail_too(
    aws: Aws, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", XRAY)
    spans = ModelSpans(collector.url)
    with LocalEndpoint(latency_scale=0.0) as endpoint, socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        closed.close()
        embeddings = CaptionEmbeddings(
            [nobody, f"{endpoint.url}/nowhere", endpoint.url],
            lambda _: {},
            "text-embedding-3-small",
            embedding.DIMENSIONS,
            SpendingLedger(aws.dynamodb, "control", now=time.time),
            Decimal("0.02"),
            report=spans.add_embeddings,
        )
        (vector,) = embeddings.of(["Two dogs on a secret beach."])
    assert vector is not None
    spans.flush()
    sent = collector.spans()
    about = [attributes(span) for span in sent]
    assert [span.name for span in sent] == ["embeddings text-embedding-3-small"] * 3
    assert [each.get("error.type") for each in about] == ["ConnectionRefusedError", "404", None]
    assert [each.get("http.response.status_code") for each in about] == [None, 404, 200]
    assert [span.status.code for span in sent] == [Status.STATUS_CODE_ERROR] * 2 + [Status.STATUS_CODE_UNSET]
    assert {span.kind for span in sent} == {Span.SPAN_KIND_CLIENT}
    assert {span.trace_id.hex() for span in sent} == {"5759e988bd862e3fe1be46a994272793"}
    answered = about[2]
    assert answered["gen_ai.operation.name"] == "embeddings"
    assert answered["gen_ai.embeddings.dimension.count"] == embedding.DIMENSIONS
    assert answered["gen_ai.response.model"]
    tokens = answered["gen_ai.usage.input_tokens"]
    assert answered["media_captions.cost.dollars"] == pytest.approx(tokens * 0.02 / 1_000_000)
    assert tokens > 0
    metrics = collector.metrics()
    (counted,) = metrics["gen_ai.client.token.usage"].histogram.data_points
    assert (attributes(counted)["gen_ai.token.type"], counted.sum) == ("input", tokens)
    assert sum(point.count for point in metrics["gen_ai.client.operation.duration"].histogram.data_points) == 3
    everything = b"".join(body for _, body in collector.bodies)
    assert b"secret beach" not in everything


def test_a_line_of_a_batch_is_a_span_that_names_its_batch(aws: Aws, dedupe: Dedupe, collector: Collector) -> None:
    with LocalEndpoint(latency_scale=0.0, catalogue=CATALOGUE) as endpoint:
        bulk = bulk_shop(aws, dedupe, endpoint)
        spans = ModelSpans(collector.url)
        bulk.lane.report = spans.add
        bulk.dedupe.clock.at = time.time() - 3_600
        bulk.upload("a.png", noise(1))
        bulk.settle()
        spans.flush()
    (batch,) = bulk.batches()
    (span,) = collector.spans()
    about = attributes(span)
    assert (span.name, about["media_captions.batch"]) == (f"chat {MODEL}", batch.id)
    assert about["media_captions.cost.dollars"] == float(batch.spent.dollars) > 0
    assert about["gen_ai.usage.input_tokens"] > 0
    assert about["gen_ai.response.model"].startswith("local/")
    assert span.start_time_unix_nano < span.end_time_unix_nano
    assert {"gen_ai.client.token.usage", "media_captions.model.cost"} == set(collector.metrics())


def test_a_collector_that_fails_takes_no_caption_along(
    shop: Workshop, spans: ModelSpans, collector: Collector, photo: bytes
) -> None:
    collector.status = 400
    assert shop.captioned("a.jpg", photo).state == "captioned"
    spans.flush()
    assert collector.bodies


@pytest.mark.deep
def test_off_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, json; from captions import composition; import captions.gateway, captions.pipeline.caption;"
        "print(json.dumps([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'google.protobuf'))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
