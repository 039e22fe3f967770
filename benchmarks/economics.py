"""What captioning costs a month, replayed: a large model for everything against routing, escalation and the cache.

    python benchmarks/economics.py --json economics.json [--media DIR] [--pictures N] [--plot FILE.svg]

Pictures go through the real code: decoding, the classifier of looks, the fingerprint, the policy's tiers, the
gateway, the reading of the answer, its confidence and the step up. They are asked about at the local endpoint, which
has no model inside; costs are the catalogue's prices for each attempt's tokens. N pictures are replayed and scaled.

What the replay cannot know is how good a cheap model's answers are. It is assumed, and written beside the figures:
FLAWED of them fail a check, and what each says of itself is drawn from Beta(RATING). Likewise the upload mix of a
month: EASY of the pictures are photographs and the like, COPIES of the uploads show what another showed. All else is
measured.

The bulk lane's column is the same month in batches: what is asked first of a model that takes batches costs the
catalogue's part of its price; repairs and steps up go the ordinary way.

Prices that are not published stay unknown: the table has the output's dollars and the input's tokens side by side, and
the dollars of the input only where its price is known.
"""

import argparse
import asyncio
import io
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image

from captions import media
from captions.config.policy import Policy, load
from captions.fingerprint import RADIUS, Fingerprint, fingerprint_image, hamming, same_picture
from captions.gateway import Attempt, Endpoint, Gateway, Media
from captions.gateway.catalogue import Catalogue
from captions.gateway.catalogue import load as load_catalogue
from captions.gateway.pricing import cost_of
from captions.gateway.types import Usage
from captions.inference.escalation import Answered, Asking, answer
from captions.picture_class import Looks, classify
from captions.routing.routes import Chains, chains
from captions.tasks import Ask, Seen
from captions_cli.local.model_endpoint import LocalEndpoint

TESTS_MEDIA = Path(__file__).parents[1] / "tests" / "media"
EASY = 0.8  # of a month's pictures, by kind
FLAWED = 0.08  # of a cheap model's answers fail a check
RATING = (5.0, 2.0)  # the Beta distribution of what it says of itself
COPIES = 0.4  # of a month's uploads show what another showed
REFERENCE_TOKENS = 5_000  # output tokens an image, of the reference figures
ANALYSES, REQUESTS = 10_000, 1_200_000
THRESHOLDS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
DEADLINE_S = 120.0
CHEAP, LARGE = "GLM-4.5V", "Qwen/Qwen3-VL-32B-Instruct"
BULK, SIMPLE, PREMIUM = "deepseek-ai/DeepSeek-V4-Flash", "GLM-4-Plus", "GPT-4o"

MONTHLY_A = f"""
[tiers.easy]
models = ["{CHEAP}", "{LARGE}"]
[tiers.hard]
models = ["{LARGE}"]
[tiers.chinese]
models = ["{LARGE}"]
"""
MONTHLY_B = f"""
[tiers.easy]
models = ["{SIMPLE}", "{PREMIUM}"]
escalates_to = "premium"
[tiers.hard]
models = ["{BULK}", "{PREMIUM}"]
escalates_to = "premium"
[tiers.chinese]
models = ["{BULK}", "{PREMIUM}"]
escalates_to = "premium"
[tiers.premium]
models = ["{PREMIUM}"]
[routing]
image = "hard"
"""


@dataclass(frozen=True)
class Upload:
    """A picture of the replayed month: its bytes, what it looks like, the copy that a model is sent."""

    name: str
    data: bytes
    easy: bool
    looks: Looks
    fingerprint: Fingerprint
    copy: Media


@dataclass
class Bill:
    """What some attempts used, and cost as far as prices are published."""

    prompt: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    completion: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    firsts: "Bill | None" = None
    """Of these, what is asked first about a picture: a batch can answer it, and no repair or step up."""

    def add(self, attempts: Iterable[Attempt], output_tokens: int | None) -> None:
        """Count attempts; with `output_tokens` each answer counts so many instead of its own."""
        attempts = tuple(attempts)
        if self.firsts is None and attempts:
            self.firsts = Bill(firsts=_NOBODY)
        if self.firsts is not None and self.firsts is not _NOBODY:
            self.firsts.add(attempts[:1], output_tokens)
        for attempt in attempts:
            if attempt.completion_tokens is None:
                continue
            self.calls[attempt.model] += 1
            self.prompt[attempt.model] += attempt.prompt_tokens or 0
            self.completion[attempt.model] += output_tokens or attempt.completion_tokens

    def output_dollars(self, catalogue: Catalogue) -> Decimal:
        return sum(
            (_priced(catalogue, m, Usage(prompt=0, completion=n)) for m, n in self.completion.items()), Decimal(0)
        )

    def input_dollars(self, catalogue: Catalogue) -> Decimal:
        """Return what the prompts cost at the models whose price for them is published."""
        known = {m: n for m, n in self.prompt.items() if catalogue.model(m).input_price is not None}
        return sum((_priced(catalogue, m, Usage(prompt=n, completion=0)) for m, n in known.items()), Decimal(0))

    def unpriced_tokens(self, catalogue: Catalogue) -> dict[str, int]:
        """Return the prompt tokens at the models whose price for them is not published."""
        return {m: n for m, n in self.prompt.items() if catalogue.model(m).input_price is None}

    def spared_dollars(self, catalogue: Catalogue) -> Decimal:
        """Return what the bulk lane takes off: of models that take batches, a part of what is asked first."""
        spared = Decimal(0)
        for name in self.firsts.calls if self.firsts is not None else ():
            factor = catalogue.model(name).batch_factor
            if factor is not None and self.firsts is not None:
                first = Bill(
                    {name: self.firsts.prompt[name]}, {name: self.firsts.completion[name]}, {name: 1}, firsts=_NOBODY
                )
                spared += (1 - factor) * (first.output_dollars(catalogue) + first.input_dollars(catalogue))
        return spared

    def row(self, name: str, catalogue: Catalogue, scale: float) -> dict[str, Any]:
        return {
            "bulk_lane_dollars": round(
                float(self.output_dollars(catalogue) + self.input_dollars(catalogue) - self.spared_dollars(catalogue))
                * scale,
                2,
            ),
            "what": name,
            "output_dollars": round(float(self.output_dollars(catalogue)) * scale, 2),
            "input_dollars_known": round(float(self.input_dollars(catalogue)) * scale, 2),
            "input_tokens_unpriced": {m: round(n * scale) for m, n in self.unpriced_tokens(catalogue).items()},
            "calls": {model: round(count * scale) for model, count in self.calls.items()},
            "output_tokens": {model: round(count * scale) for model, count in self.completion.items()},
        }


_NOBODY = Bill()


def _priced(catalogue: Catalogue, model: str, usage: Usage) -> Decimal:
    cost, _ = cost_of(usage, None, catalogue.model(model))
    assert cost.exact is not None
    return cost.exact


# ------------------------------------------------------------------------------------------------ the month's pictures


def sources(folder: Path | None) -> tuple[list[Path], list[Path]]:
    """Return files of easy and of hard pictures."""
    if folder is None:
        return (
            sorted((TESTS_MEDIA / "photos").glob("*.jpg")),
            sorted((TESTS_MEDIA / "documents").glob("*.*")),
        )
    sys.path.insert(0, str(Path(__file__).parent))
    from looks_labels import labelled

    easy: list[Path] = []
    hard: list[Path] = []
    for picture in labelled(folder):
        if len(picture.labels) == 1 and not picture.path.startswith(("families/", "odd/")):
            kinds = easy if picture.labels[0] in ("photo", "product", "drawing", "little") else hard
            kinds.append(folder / picture.path)
    return easy, hard


def cut(picture: Image.Image, rng: random.Random, *, photo: bool) -> Image.Image:
    """Return a part of a photograph that is a picture of its own; of a page, a margin more or less."""
    share = rng.uniform(0.55, 0.95) if photo else rng.uniform(0.93, 1.0)
    size = (int(picture.width * share), int(picture.height * share))
    left, top = rng.randint(0, picture.width - size[0]), rng.randint(0, picture.height - size[1])
    part = picture.crop((left, top, left + size[0], top + size[1]))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if photo and rng.random() < 0.5 else part


def saved(picture: Image.Image, name: str, **options: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def upload(name: str, data: bytes, easy: bool) -> Upload:
    inspected = media.inspect(data)
    assert inspected.picture is not None
    copy, media_type = media.model_copy(data)
    return Upload(
        name, data, easy, classify(inspected.picture), fingerprint_image(inspected), Media("image", media_type, copy)
    )


def month(folder: Path | None, count: int, rng: random.Random) -> list[Upload]:
    """Return `count` distinct pictures, EASY of them of easy kinds."""
    kinds = dict(zip((True, False), sources(folder), strict=True))
    uploads: list[Upload] = []
    for number in range(count):
        easy = number < round(EASY * count)
        with Image.open(rng.choice(kinds[easy])) as picture:
            part = cut(picture.convert("RGB"), rng, photo=easy)
        part.thumbnail((1024, 1024))
        data = saved(part, "JPEG", quality=88) if easy else saved(part, "PNG")
        uploads.append(upload(f"{number:04}", data, easy))
    return uploads


def copied(original: Upload, number: int, rng: random.Random) -> Upload:
    """Return another upload of the same picture: the same bytes, recompressed, or smaller."""
    kind = rng.random()
    data = original.data
    if kind > 0.4:
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGB")
            if kind > 0.7:
                picture.thumbnail((640, 640))
            data = saved(picture, "JPEG", quality=rng.choice((70, 80, 90)))
    return upload(f"{original.name}-{number}", data, original.easy)


class Known:
    """What was captioned before: exact digests and hashes in memory, judged by the same evidence as the index's."""

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._near: list[tuple[bytes, bytes]] = []

    def has(self, mark: Fingerprint) -> bool:
        """Tell whether a picture's caption can be copied, and remember the picture otherwise."""
        if self._exact & set(mark.exact):
            return True
        if mark.phash is not None and mark.evidence is not None:
            for phash, evidence in self._near:
                if hamming(phash, mark.phash) <= RADIUS and same_picture(evidence, mark.evidence, "strict"):
                    return True
            self._near.append((mark.phash, mark.evidence))
        self._exact.update(mark.exact)
        return False


# ------------------------------------------------------------------------------------------------ asking


async def asked(
    gateway: Gateway, uploads: Sequence[Upload], policy: Policy, *, chain: Sequence[str] = (), run: str = ""
) -> list[Answered]:
    """Ask about each upload as the worker does: of `chain` alone, or of the tiers its looks are routed to."""
    answers = []
    for upload in uploads:
        chosen = (
            Chains(tier="all", models=tuple(chain))
            if chain
            else chains(f"photos/{upload.name}", "image", "caption", policy, looks=upload.looks)
        )
        seen = Seen(kind="image", category=upload.looks.category, text_share=upload.looks.text_share)
        call = Asking(gateway, time.monotonic() + DEADLINE_S, request_id=f"{upload.name}.{run}")
        answers.append(await answer(call, Ask(task="caption"), (upload.copy,), chosen, seen))
    return answers


def attempts_of(answered: Answered) -> list[Attempt]:
    """Return every attempt of the calls that were answered, those before the answer too."""
    return [attempt for candidate in answered.candidates for attempt in candidate.completion.attempts]


def doubtful(
    uploads: Sequence[Upload], answers: Sequence[Answered], models: Sequence[str], rng: random.Random
) -> list[dict[str, Any]]:
    """Return faults that make cheap models answer as assumed: the endpoint's own words, with a rating; or flawed."""
    faults = []
    for upload, answered in zip(uploads, answers, strict=True):
        document = json.loads(answered.completion.text)
        document["confidence"] = round(rng.betavariate(*RATING), 2)
        text = json.dumps(document)
        if rng.random() < FLAWED:  # it goes on and on, and says the same
            text = json.dumps(document | {"caption": (answered.output.text + " ") * 12})
        faults += [
            {"fault": "answer", "model": model, "match_client_request_id": f"{upload.name}.*", "text": text}
            for model in models
        ]
    return faults


def escalated_share(answers: Sequence[Answered], tiers: Sequence[str]) -> float:
    """Return the share of the answers first given in these tiers that went a step up."""
    cheap = [answered for answered in answers if answered.candidates[0].tier in tiers]
    return sum(answered.escalated for answered in cheap) / max(1, len(cheap))


def bills(
    name: str, answers: Sequence[Answered], catalogue: Catalogue, total: float, count: int
) -> list[dict[str, Any]]:
    """Return two rows: with the tokens that were used, and with the reference's output tokens."""
    rows = []
    for tokens in (None, REFERENCE_TOKENS):
        bill = Bill()
        for given in answers:
            bill.add(attempts_of(given), tokens)
        rows.append(bill.row(name, catalogue, total / count) | {"output_tokens_an_answer": tokens or "as measured"})
    return rows


async def analyses(
    gateway: Gateway, endpoint: LocalEndpoint, uploads: list[Upload], catalogue: Catalogue, seed: int
) -> dict[str, Any]:
    """(a) All on the large vision model, against the cheap one for easy pictures with a step up where in doubt."""
    policy = load(MONTHLY_A)
    large = await asked(gateway, uploads, policy, chain=(LARGE,), run="a0")
    endpoint.set_faults(doubtful(uploads, large, (CHEAP,), random.Random(seed)))
    rows = bills(f"all on {LARGE}", large, catalogue, ANALYSES, len(uploads))
    sweep = []
    for threshold in THRESHOLDS:
        moved = load(f"{MONTHLY_A}\n[escalation]\nthreshold = {threshold}")
        answers = await asked(gateway, uploads, moved, run=f"a{threshold}")
        bill, at_reference, scale = Bill(), Bill(), ANALYSES / len(uploads)
        for given in answers:
            bill.add(attempts_of(given), None)
            at_reference.add(attempts_of(given), REFERENCE_TOKENS)
        sweep.append({
            "threshold": threshold,
            "escalated_of_cheap": round(escalated_share(answers, ("easy",)), 4),
            "calls_of_large": round(bill.calls[LARGE] / len(uploads), 4),
            "output_dollars": round(float(bill.output_dollars(catalogue)) * scale, 3),
            "output_dollars_at_reference": round(float(at_reference.output_dollars(catalogue)) * scale, 2),
        })  # fmt: skip
        if threshold == float(policy.escalation.threshold):
            name = f"{CHEAP} for easy pictures, a step up under {threshold}"
            rows += bills(name, answers, catalogue, ANALYSES, len(uploads))
    endpoint.clear()
    easy = [upload for upload in uploads if policy.tier("photos/x", "image", "caption", upload.looks) == "easy"]
    return {
        "analyses": ANALYSES,
        "replayed": len(uploads),
        "easy_by_kind": EASY,
        "routed_to_cheap": round(len(easy) / len(uploads), 4),
        "easy_routed_to_cheap": round(
            sum(upload.easy for upload in easy) / max(1, sum(upload.easy for upload in uploads)), 4
        ),
        "hard_routed_to_cheap": round(
            sum(not upload.easy for upload in easy) / max(1, sum(not upload.easy for upload in uploads)), 4
        ),
        "output_tokens_measured": round(
            statistics.fmean(answer.completion.usage.completion or 0 for answer in large), 1
        ),
        "rows": rows,
        "break_even_input_price": {
            str(before["output_tokens_an_answer"]): break_even(before, after)
            for before, after in zip(rows[:2], rows[2:4], strict=True)
        },
        "sweep": sweep,
        "reference": {"all_on_large": 26.0, "routed": 8.5, "output_tokens": REFERENCE_TOKENS},
    }


def break_even(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    """Return from which input price (dollars per million, the same for both models) on the steps up eat up the saving.

    None if routing sends no more prompt tokens than one model for everything.
    """
    more = sum(after["input_tokens_unpriced"].values()) - sum(before["input_tokens_unpriced"].values())
    saved = before["output_dollars"] - after["output_dollars"]
    return round(saved / more * 1e6, 3) if more > 0 else None


async def requests(
    gateway: Gateway, endpoint: LocalEndpoint, uploads: list[Upload], catalogue: Catalogue, seed: int
) -> dict[str, Any]:
    """(b) GPT-4o alone, against bulk and simple models, the premium one where in doubt, and copies for nothing."""
    rng = random.Random(seed)
    policy = load(MONTHLY_B)
    arriving = list(uploads)
    copies = round(len(uploads) * COPIES / (1 - COPIES))
    arriving += [copied(rng.choice(uploads), number, rng) for number in range(copies)]
    known = Known()
    misses = [upload for upload in arriving if not known.has(upload.fingerprint)]
    premium = await asked(gateway, arriving, policy, chain=(PREMIUM,), run="b0")
    answer_of = {upload.name: answered for upload, answered in zip(arriving, premium, strict=True)}
    endpoint.set_faults(doubtful(misses, [answer_of[miss.name] for miss in misses], (BULK, SIMPLE), rng))
    routed = await asked(gateway, misses, policy, run="b1")
    endpoint.clear()
    rows = bills(f"{PREMIUM} alone, no cache", premium, catalogue, REQUESTS, len(arriving))
    cached_only = [answer_of[miss.name] for miss in misses]
    rows += bills(f"{PREMIUM} alone, with the cache", cached_only, catalogue, REQUESTS, len(arriving))
    name = f"{BULK.split('/')[-1]} and {SIMPLE}, {PREMIUM} in doubt, with the cache"
    rows += bills(name, routed, catalogue, REQUESTS, len(arriving))
    before, after = dollars(rows[0]), dollars(rows[4])
    only_cache = dollars(rows[2])
    kept = [{
        "share_of_misses_kept_on_premium": share,
        "less_percent": round(100 * (1 - (share * only_cache + (1 - share) * after) / before), 1),
    } for share in (0.0, 0.25, 0.5, 0.66, 0.75, 1.0)]  # fmt: skip
    return {
        "requests": REQUESTS,
        "replayed": len(arriving),
        "copies": round((len(arriving) - len(uploads)) / len(arriving), 4),
        "cache_hits": round(1 - len(misses) / len(arriving), 4),
        "escalated": round(escalated_share(routed, ("easy", "hard", "chinese")), 4),
        "rows": rows,
        "less_percent": round(100 * (1 - after / before), 1),
        "less_percent_by_cache_alone": round(100 * (1 - only_cache / before), 1),
        "with_a_share_kept_on_premium": kept,
        "reference": {"less_percent": [40, 65], "measured": 58},
    }


def dollars(row: dict[str, Any]) -> float:
    return float(row["output_dollars"] + row["input_dollars_known"])


# ------------------------------------------------------------------------------------------------ shown


def shown(rows: Sequence[dict[str, Any]]) -> None:
    print(
        f"{'':70}{'output tokens':>15}{'output $':>11}{'input $':>10}{'with the bulk lane $':>22}"
        "   input tokens without a published price"
    )
    for row in rows:
        unpriced = ", ".join(f"{n / 1e6:.1f} M {m.split('/')[-1]}" for m, n in row["input_tokens_unpriced"].items())
        print(
            f"{row['what']:70}{row['output_tokens_an_answer']!s:>15}{row['output_dollars']:>11,.2f}"
            f"{row['input_dollars_known']:>10,.2f}{row['bulk_lane_dollars']:>22,.2f}   {unpriced or '-'}"
        )


def plot(sweep: Sequence[dict[str, Any]], packaged: float) -> str:
    """Return an SVG of the share escalated and the output's cost, at the reference's tokens, by threshold."""
    left, top, width, height = 64, 24, 520, 260
    most = max(point["output_dollars_at_reference"] for point in sweep)
    ceiling = 5 * (int(most / 5) + 1)

    def line(name: str, highest: float) -> str:
        points = [(left + width * point["threshold"], top + height * (1 - point[name] / highest)) for point in sweep]
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {top + height + 62}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for step in range(6):
        y = top + height * (1 - step / 5)
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#1f5fa8">{20 * step} %</text>')
        parts.append(f'<text x="{left + width + 8}" y="{y + 4:.1f}" fill="#b3471d">${ceiling * step / 5:g}</text>')
        x = left + width * step / 5
        parts.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{step / 5:g}</text>')
    at = left + width * packaged
    parts += [
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + height}" stroke="#888" stroke-dasharray="4 3"/>',
        f'<text x="{at - 6:.1f}" y="{top + 14}" text-anchor="end" fill="#555">packaged threshold</text>',
        f'<polyline fill="none" stroke="#1f5fa8" stroke-width="2" points="{line("escalated_of_cheap", 1.0)}"/>',
        f'<polyline fill="none" stroke="#b3471d" stroke-width="2" '
        f'points="{line("output_dollars_at_reference", ceiling)}"/>',
        f'<text x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle">threshold of confidence</text>',
        f'<text x="{left}" y="{top + height + 54}" fill="#1f5fa8">share of cheap answers escalated</text>',
        f'<text x="{left + width}" y="{top + height + 54}" text-anchor="end" fill="#b3471d">'
        "output dollars per 10,000 analyses of 5,000 tokens</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


async def replayed(options: argparse.Namespace) -> dict[str, Any]:
    catalogue = load_catalogue()
    rng = random.Random(options.seed)
    uploads = month(options.media, options.pictures, rng)
    with LocalEndpoint(latency_scale=0.0) as endpoint:
        gateway = Gateway(endpoints=[Endpoint(endpoint.url)], keys=lambda force: "local", catalogue=catalogue)
        try:
            first = await analyses(gateway, endpoint, uploads, catalogue, options.seed)
            second = await requests(gateway, endpoint, uploads, catalogue, options.seed)
        finally:
            await gateway.aclose()
    assumed = {"easy": EASY, "flawed": FLAWED, "rating_beta": RATING, "copies": COPIES}
    return {"assumed": assumed, "analyses": first, "requests": second}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--media", type=Path, help="real media, laid out as docs/near-duplicates.md says")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    facts = asyncio.run(replayed(options))
    first, second = facts["analyses"], facts["requests"]
    print(f"(a) {ANALYSES:,} analyses a month; {first['replayed']} pictures replayed and scaled")
    shown(first["rows"])
    print(
        f"routed to the cheap model: {first['routed_to_cheap']:.0%} of all, {first['easy_routed_to_cheap']:.0%} of the "
        f"easy, {first['hard_routed_to_cheap']:.0%} of the hard; reference: 26 and about 8.5 dollars"
    )
    for point in first["sweep"]:
        print(
            f"  threshold {point['threshold']:.2f}: {point['escalated_of_cheap']:4.0%} of the cheap answers escalated, "
            f"{point['output_dollars_at_reference']:6.2f} dollars at {REFERENCE_TOKENS:,} tokens, "
            f"{point['output_dollars']:.3f} as measured"
        )
    for tokens, price in first["break_even_input_price"].items():
        print(f"  output tokens {tokens}: saves until input costs {price} dollars per million tokens at both models")
    print(f"(b) {REQUESTS:,} requests a month; {second['replayed']} uploads replayed and scaled")
    shown(second["rows"])
    print(
        f"copies {second['copies']:.0%}, recognised {second['cache_hits']:.0%}, escalated {second['escalated']:.0%} of "
        f"the rest: {second['less_percent']} % less ({second['less_percent_by_cache_alone']} % by the cache alone); "
        "reference: 40 to 65 %, 58 % measured"
    )
    for point in second["with_a_share_kept_on_premium"]:
        share = point["share_of_misses_kept_on_premium"]
        print(f"  with {share:.0%} of the misses kept on {PREMIUM}: {point['less_percent']} % less")
    if options.plot:
        options.plot.write_text(plot(first["sweep"], float(load(MONTHLY_A).escalation.threshold)))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
