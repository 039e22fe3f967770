"""What the API takes and answers, written from its OpenAPI document by `make openapi`; not to be edited."""

from __future__ import annotations

from typing import Any, Literal

from captions_client.shape import Shape


class Alarm(Shape):
    """An alarm that rings."""

    name: str
    since: str | None
    reason: str


class BegunUpload(Shape):
    """A large upload that was begun."""

    upload: str


class Budget(Shape):
    """What may be spent in a day (UTC), and what has been."""

    scope: str
    """A key prefix, or * for everything."""
    limit: str
    spent: str


class Circuit(Shape):
    """A model or an endpoint that is left alone for a while."""

    name: str
    reason: str
    open_until: str
    level: int


class Comparison(Shape):
    """Why a copy was held for the same as what it was copied from."""

    kind: Literal["same_bytes", "same_content", "near"] | str
    hash_distance: int | None = None
    """Bits of 256 in which the perceptual hashes differ."""
    why: str


class Copy(Shape):
    """An asset that took this one's caption."""

    id: str
    key: str
    thumbnail: str | None
    at: str
    comparison: Comparison | None
    """Null: it is older than what is kept of comparisons."""


class EditedCaption(Shape):
    """A person's words in a caption's place."""

    text: str
    language: str | None = None
    """A BCP 47 tag; without it that of the caption."""


class Form(Shape):
    """A form that sends the file by POST, its field `file` last."""

    id: str
    key: str
    url: str
    fields: dict[str, str]


class ModelEntry(Shape):
    """A model of the catalogue; prices in dollars per million tokens, or per minute of sound; null: not published."""

    name: str
    provider: str
    modalities: list[str]
    context: int
    tiers: list[str]
    input_price: str | None
    output_price: str | None
    minute_price: str | None
    enabled: bool


class Models(Shape):
    """The catalogue."""

    models: list[ModelEntry]


class Money(Shape):
    """What is known of a cost: dollars for certain, tokens without a known price, calls that nobody counted."""

    dollars: str
    """Decimal text: the part that is known."""
    unpriced_tokens: int = 0
    uncounted_calls: int = 0
    exact: bool
    """Whether the dollars are all there is."""


class NewUpload(Shape):
    """A file that is to be uploaded, and what is asked about it."""

    name: str = ""
    """The file's name; its key is made of it."""
    key: str | None = None
    """The whole key, in place of one made of the name."""
    size: int
    """Bytes."""
    media_type: str = "application/octet-stream"
    task: str | None = None
    style: str | None = None
    language: str | None = None
    question: str | None = None
    context: dict[str, str] | None = None
    """Title, description and the like, as data."""


class Opened(Shape):
    """Somebody has an asset open in review."""

    by: str
    until: str
    yours: bool = False
    """Whether that is the caller."""


class Original(Shape):
    """The asset a caption was copied from; null members: it is gone, or none of the caller's."""

    id: str
    key: str
    thumbnail: str | None
    comparison: Comparison | None


class PartLinks(Shape):
    """Where each part is sent by PUT; each answers with an ETag, which the end takes."""

    urls: dict[str, str]


class Parts(Shape):
    """A large upload that was begun: so many parts of `part_size` bytes, the last one shorter."""

    id: str
    key: str
    upload: str
    """What the other calls about it take."""
    part_size: int
    parts: int


class QualityCell(Shape):
    """What people did with the captions of one category, model, task and prompt; shares are 0 to 1."""

    id: str
    category: str
    model: str
    task: str
    prompt_version: str
    experiment: str | None
    arm: str | None
    edited: int
    accepted: int
    share: float | None
    """Edited among edited and accepted; null: none was judged."""
    low: float
    """Where the 95 % interval of the share begins."""
    high: float
    flagged: bool
    """Whether people edit too many of them, for certain."""
    flagged_since: str | None


class QualityReport(Shape):
    """What people make of captions; flagged cells first."""

    cells: list[QualityCell]
    minimum: int
    """Verdicts in a cell, below which nothing is said about it."""
    line: float
    """The share of edited captions that is too large."""


class Queue(Shape):
    """Messages of a queue, about."""

    name: str
    dead_letters: bool
    visible: int
    in_flight: int
    delayed: int


class Queued(Shape):
    """Whether an upload is on its way again."""

    queued: bool


class Reason(Shape):
    """Why an upload is rejected, blocked, failed or deleted: a code for programs and a sentence for people."""

    code: str
    message: str


class RecaptionOrder(Shape):
    """How an asset is to be captioned once more."""

    dry_run: bool = True
    """Whether only the cost is told."""
    mode: Literal["force", "stale"] | str = "force"
    """`stale`: a copy of a caption that is not stale will do."""
    max_cost: float | str | None = None
    """Dollars it may cost at the most; what has no known price is refused then."""


class Recaptioned(Shape):
    """Whether an asset is on its way once more, and what that may cost."""

    queued: bool
    model: str
    cost: Money | None
    """As expected; null: not known."""
    most: str | None
    """Dollars at the most, by the models that have a price."""
    unpriced: list[str]
    """Models that may be asked and have no price."""


class Result(Shape):
    """What was said about the media."""

    text: str
    language: str
    task: str
    style: str = ""
    tags: list[str] = []
    safety: str | None = None
    confidence: float | None = None
    data: dict[str, Any] | None = None
    left_out: list[Literal["data", "tags", "text"] | str] = []


class SentPart(Shape):
    """A part that was sent."""

    number: int
    etag: str


class SentParts(Shape):
    """All parts of an upload."""

    upload: str
    parts: list[SentPart]


class Stored(Shape):
    """An object that now is in the bucket."""

    id: str
    key: str
    version_id: str | None = None
    """null where the bucket keeps no versions."""


class Suggested(Shape):
    """A model's answer beside a person's words."""

    result: Result
    source: Literal["model", "cache"] | str
    at: str
    replaced: bool


class Track(Shape):
    """Subtitles of a recording."""

    kind: Literal["captions"] | str
    format: Literal["vtt", "srt"] | str
    language: str | None
    url: str


class Verdict(Shape):
    """What a person said."""

    action: Literal["edited", "accepted"] | str
    text: str
    language: str
    at: str
    of_this_version: bool


class WantedParts(Shape):
    """The parts to be sent next."""

    upload: str
    numbers: list[int]


class ProblemDetails(Shape):
    """What every error answers with; some have further members."""

    type: str
    """A name of the problem, for programs: a relative URI."""
    title: str
    status: int
    detail: str


class NamedAsset(Shape):
    """An asset that was uploaded before; one of both."""

    id: str | None = None
    key: str | None = None


class AssetSummary(Shape):
    """One upload in a list."""

    id: str
    bucket: str
    key: str
    state: Literal["received", "queued", "waiting", "captioned", "rejected", "blocked", "failed", "deleted"] | str
    reason: Reason | None
    kind: str | None
    """image, animation, document, audio or video; null until it was looked at."""
    media_type: str | None
    task: str | None
    category: str | None
    tier: str | None
    text: str
    """Its caption; in lists at most 2000 characters of it."""
    text_cut: bool
    """Whether the text goes on."""
    alt_text: str | None
    tags: list[str]
    language: str | None
    safety: str | None
    confidence: float | None
    model: str | None
    reported_model: str | None
    source: Literal["model", "cache", "human"] | str | None
    reviewed: Literal["accepted", "edited"] | str | None
    reviewed_at: str | None
    size: int
    received_at: str
    updated_at: str
    completed_at: str | None
    recaptioning: bool
    """Whether it is on its way once more, with the caption it has."""
    cost: Money | None
    thumbnail: str | None
    """Path of a small picture; null for what has none."""
    opened_by: Opened | None
    etag: str
    """What `If-Match` takes."""


class Assets(Shape):
    """A page of assets."""

    items: list[AssetSummary]
    cursor: str | None
    """Where the next page begins; null: there is no more. A page may be short."""
    live: str
    """What `since` takes, to be told what has ended or moved from now on; after `since` itself, where it goes on: of much that ended, a part is told at once."""


class Batch(Shape):
    """A batch of the bulk lane."""

    id: str
    state: Literal["formed", "ready", "submitting", "submitted", "ended", "closed"] | str
    model: str
    lines: int
    taken: int
    """Lines of its results that were handed out."""
    gathered_at: str
    """When the first of its lines began to wait."""
    deadline: str
    """What it has not answered then goes the ordinary way."""
    cost: Money
    """Of the lines that were handed out."""
    saved: Money
    """What they would have cost by themselves, beyond that."""
    remote_id: str | None
    """What the endpoint calls it."""
    reason: str | None
    """Why it does not go on, or ended without results."""


class BulkStatus(Shape):
    """What waits in the bulk lane, and in which batches."""

    waiting: int
    """Uploads that are gathered, and in no batch yet."""
    waiting_complete: bool
    """Whether all of them were counted."""
    waiting_since: str | None
    """When the oldest of them was gathered."""
    batches: list[Batch]
    """Those under way, and those closed in the last day; oldest first."""


class Call(Shape):
    """One call to one model, or several older ones in one."""

    model: str
    endpoint: str | None
    outcome: str
    role: str | None
    tier: str | None
    status: int | None
    detail: str | None
    started_at: str | None
    latency_ms: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    calls: int
    cost: Money
    batch: str | None = None
    """The batch it was a line of; how long it took is not known then."""


class CostRow(Shape):
    """What some uploads cost and saved."""

    name: str
    uploads: int
    calls: int
    copied: int
    paid: Money
    saved_by_cache: Money
    saved_by_batches: Money


class CostTotals(Shape):
    """What all uploads looked at cost, and what they would have."""

    uploads: int
    calls: int
    copied: int
    paid: Money
    saved_by_cache: Money
    saved_by_batches: Money
    """What calls in batches would have cost by themselves, beyond their cost."""
    saved_by_tiers: Money
    """What asking cheaper tiers first saved against the first model of the tier they step up to, by the prices of now; below zero: what stepping up cost beyond that."""
    cost_of_fallback: Money
    """What falling back cost beyond what the first model of each chain would have, by the prices of now."""
    baseline: Money | None
    """What the model that `baseline` names would have cost alone."""


class Costs(Shape):
    """Costs of the uploads that ended in the last days."""

    rows: list[CostRow]
    totals: CostTotals
    embeddings: Money | None = None
    """What embeddings of captions and queries cost in these days, for all prefixes, beside the totals; null: nothing is searched, or the caller sees some prefixes only."""
    simulated: bool
    """Whether the local stack's own models gave some of the answers, at the prices of those asked for."""
    complete: bool
    """Whether every upload of these days is in the sums."""
    cursor: str | None = None
    """Goes on from these sums: the answer has all of them and the next uploads; null: complete."""
    back_to: str | None = None
    """Of what ended since then every upload is in the sums, exactly; null: complete."""


class FoundAssets(Shape):
    """A page of a search."""

    items: list[AssetSummary]
    cursor: str | None
    """Where the next page begins; null: there is no more. A page may be short."""
    relaxed: bool
    """Whether no caption has every word, so that these lack some."""
    by: list[Literal["words", "meaning"] | str]
    """By what was searched; by words alone: newest first."""


class Moment(Shape):
    """One step on an upload's way."""

    at: str
    what: Literal["received", "batch", "attempt", "answered", "copied", "ended", "reviewed", "recaption"] | str
    detail: str
    call: Call | None = None


class ReviewQueue(Shape):
    """Captions to be judged."""

    items: list[AssetSummary]
    cursor: str | None
    population: int | None
    """About how many captions a sample stands for; null: not known, or no sample."""
    margin_of_error: float | None
    """Half of the 95 % interval of a share that is found in the sample, at the widest; null: no sample."""
    seed: str | None
    """Draws the same sample again, as long as the table stays the same."""


class Status(Shape):
    """How the stack is; what is about all uploads is left out (null) for callers of some prefixes."""

    queues: list[Queue] | None
    circuits: list[Circuit]
    budgets: list[Budget]
    alarms: list[Alarm] | None
    alarms_known: bool
    """Whether there is a stack whose alarms can ring."""
    alarms_without_data: int | None
    """Alarms of which nothing can be told, as what they watch was not measured."""
    bulk: BulkStatus | None = None
    states: dict[str, int]
    """Uploads by state: on their way, ended without a caption, unreviewed."""
    states_complete: bool
    """Whether all of them were counted."""


class Asset(Shape):
    """One upload in full."""

    id: str
    bucket: str
    key: str
    state: Literal["received", "queued", "waiting", "captioned", "rejected", "blocked", "failed", "deleted"] | str
    reason: Reason | None
    kind: str | None
    """image, animation, document, audio or video; null until it was looked at."""
    media_type: str | None
    task: str | None
    category: str | None
    tier: str | None
    text: str
    """Its caption; in lists at most 2000 characters of it."""
    text_cut: bool
    """Whether the text goes on."""
    alt_text: str | None
    tags: list[str]
    language: str | None
    safety: str | None
    confidence: float | None
    model: str | None
    reported_model: str | None
    source: Literal["model", "cache", "human"] | str | None
    reviewed: Literal["accepted", "edited"] | str | None
    reviewed_at: str | None
    size: int
    received_at: str
    updated_at: str
    completed_at: str | None
    recaptioning: bool
    """Whether it is on its way once more, with the caption it has."""
    cost: Money | None
    thumbnail: str | None
    """Path of a small picture; null for what has none."""
    opened_by: Opened | None
    etag: str
    """What `If-Match` takes."""
    version_id: str | None
    result: Result | None
    provenance: dict[str, Any] | None
    attempts: list[Call]
    suggestion: Suggested | None
    human: Verdict | None
    model_text: str | None
    """The model's own latest words."""
    media_url: str | None
    """A link to the media, good for five minutes at the most."""
    tracks: list[Track]
    timeline: list[Moment]
    copies: list[Copy]
    """The newest; `/v1/assets?copy_of=` lists them all."""
    more_copies: bool
    """Whether there are more, or may be."""
    copied_from: Original | None
