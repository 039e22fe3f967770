"""Each call to a model as a span and in metrics of OpenTelemetry, by its semantic conventions for generative AI.

Off unless an OTLP endpoint is given; only then is the SDK imported. Spans say which model was asked and answered, its
tokens, cost, time and failure: never a prompt, a caption, a key of an object or of an endpoint. They belong to the
invocation's X-Ray trace by its id. A sandbox may be frozen when an invocation ends: `flush` sends what there is before.

Source: OpenTelemetry, "Semantic conventions for generative client AI spans" and "… AI metrics" (status: development),
https://opentelemetry.io/docs/specs/semconv/gen-ai/.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

    from captions.gateway.types import CallReport
    from captions.search.embeddings import EmbeddingsCall

TIMEOUT_SECONDS = 2.0
"""Of one export: an invocation waits for no longer where the collector does not answer."""
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
SECOND_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""What the conventions say their histograms are to have."""
_PROVIDERS = {"OpenAI": "openai", "DeepSeek": "deepseek", "Anthropic": "anthropic", "Mistral": "mistral_ai",
              "Google": "gcp.gemini", "xAI": "x_ai", "Cohere": "cohere", "Groq": "groq"}  # fmt: skip
"""The conventions' own names of providers; others are written in lower case."""
_XRAY = re.compile(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;Parent=([0-9a-f]{16}))?")


class ModelSpans:
    """Sends spans and metrics to a collector that speaks OTLP over HTTP, such as http://localhost:4318."""

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        base = endpoint.rstrip("/")
        resource = Resource.create(
            {
                "service.name": os.environ.get("POWERTOOLS_SERVICE_NAME", "captions"),
                "service.namespace": os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "media-captions"),
            }
        )
        self._traces = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=TIMEOUT_SECONDS)
        self._traces.add_span_processor(BatchSpanProcessor(spans))
        values = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=TIMEOUT_SECONDS)
        # By itself it sends never: `flush` does.
        reader = PeriodicExportingMetricReader(values, export_interval_millis=float("inf"))
        self._metrics = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._tracer: Tracer = self._traces.get_tracer("media-captions")
        meter = self._metrics.get_meter("media-captions")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", explicit_bucket_boundaries_advisory=TOKEN_BUCKETS
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", explicit_bucket_boundaries_advisory=SECOND_BUCKETS
        )
        self._dollars = meter.create_counter("media_captions.model.cost", "{USD}", "Dollars, as far as they are known")

    def add(self, call: CallReport) -> None:
        """Add one call that has ended; a line of a batch has lasted from when its batch was sent until now."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        attempt = call.attempt
        about = _about(call)
        numbers = {
            "gen_ai.usage.input_tokens": attempt.prompt_tokens,
            "gen_ai.usage.output_tokens": attempt.completion_tokens,
            "http.response.status_code": attempt.status,
        }
        more: dict[str, AttributeValue] = {name: value for name, value in numbers.items() if value is not None}
        if call.finish_reason:
            more["gen_ai.response.finish_reasons"] = (call.finish_reason,)
        if attempt.batch is not None:
            more["media_captions.batch"] = attempt.batch
        if attempt.cost is not None:
            more["media_captions.cost.dollars"] = float(attempt.cost)
        began = int(datetime.fromisoformat(attempt.started_at).timestamp() * 1_000_000_000)
        span = self._tracer.start_span(
            f"{call.operation} {call.wire_name}",
            context=_parent(os.environ.get("_X_AMZN_TRACE_ID", "")),
            kind=SpanKind.CLIENT,
            attributes={**about, **more},
            start_time=began,
        )
        if attempt.outcome != "ok":
            span.set_status(Status(StatusCode.ERROR))
        if attempt.lane == "bulk":  # how long it waited in its batch says nothing of the model
            span.end(max(began, time.time_ns()))
        else:
            span.end(began + attempt.latency_ms * 1_000_000)
            self._seconds.record(attempt.latency_ms / 1000, about)
        for kind, tokens in (("input", attempt.prompt_tokens), ("output", attempt.completion_tokens)):
            if tokens is not None:
                self._tokens.record(tokens, {**about, "gen_ai.token.type": kind})
        if attempt.spent.dollars:
            self._dollars.add(float(attempt.spent.dollars), about)

    def add_embeddings(self, call: EmbeddingsCall) -> None:
        """Add one call for embeddings that has ended."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        # Who made the model is not known: by the conventions it is then the provider whose API is spoken.
        about = _where(call.base_url) | {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": call.model,
        }
        if call.reported_model:
            about["gen_ai.response.model"] = call.reported_model
        if call.error is not None:
            about["error.type"] = call.error
        more: dict[str, AttributeValue] = {
            "gen_ai.embeddings.dimension.count": call.dimensions,
            "gen_ai.request.encoding_formats": ("float",),
        }
        numbers = {"gen_ai.usage.input_tokens": call.tokens, "http.response.status_code": call.status}
        more |= {name: value for name, value in numbers.items() if value is not None}
        if call.cost.dollars:
            more["media_captions.cost.dollars"] = float(call.cost.dollars)
            self._dollars.add(float(call.cost.dollars), about)
        began = round(call.began * 1_000_000_000)
        span = self._tracer.start_span(
            f"embeddings {call.model}",
            context=_parent(os.environ.get("_X_AMZN_TRACE_ID", "")),
            kind=SpanKind.CLIENT,
            attributes={**about, **more},
            start_time=began,
        )
        if call.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(began + round(call.seconds * 1_000_000_000))
        self._seconds.record(call.seconds, about)
        if call.tokens is not None:
            self._tokens.record(call.tokens, {**about, "gen_ai.token.type": "input"})

    def flush(self) -> None:
        """Send what there is; what the collector does not take in time is lost, and the SDK logs it."""
        self._traces.force_flush(round(TIMEOUT_SECONDS * 1000))
        self._metrics.force_flush(round(TIMEOUT_SECONDS * 1000))


def _about(call: CallReport) -> Mapping[str, Any]:
    """What spans and metrics both say of a call: few values, as each combination is a series."""
    about = _where(call.base_url) | {
        "gen_ai.operation.name": call.operation,
        "gen_ai.provider.name": _PROVIDERS.get(call.provider, call.provider.lower()),
        "gen_ai.request.model": call.wire_name,
    }
    if call.reported_model:
        about["gen_ai.response.model"] = call.reported_model
    if call.attempt.outcome != "ok":
        about["error.type"] = call.attempt.outcome
    return about


def _where(base_url: str) -> dict[str, Any]:
    where = urlsplit(base_url)
    port = where.port or (80 if where.scheme == "http" else 443)
    return {"server.address": where.hostname or "", "server.port": port}


def _parent(header: str) -> Any:
    """Return the context of an invocation's X-Ray trace; None where there is none, which begins a trace of its own."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    match = _XRAY.search(header)
    if match is None or match[3] is None:
        return None
    trace, span = int(match[1] + match[2], 16), int(match[3], 16)
    context = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(context))
