"""`captions evaluate`: the command line of it."""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from captions_cli.commands.options import MOST, Days, Globals, Prefix, say, text_of
from captions_cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captions.config.policy import Policy
    from captions.gateway.catalogue import Catalogue
    from captions_cli.evaluate.journal import Journal
    from captions_cli.evaluate.questions import Estimate, LeftOut, Question
    from captions_cli.evaluate.running import AskedModels, Run
    from captions_cli.evaluate.summary import JudgedAnswer


class _Group(TyperGroup):
    """A group whose first word may be a labelled set: `captions evaluate SET` means `captions evaluate run SET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Measure models on labelled media: `captions evaluate SET --models A,B` (docs/evaluate.md).",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _evaluate() -> None: ...


LabelledSet = Annotated[Path, typer.Argument(metavar="SET", help="A folder with labels.csv or labels.jsonl.")]
Models = Annotated[str, typer.Option(help="Models to measure one by one, as in A,B,C; none: the policy's.")]
Policies = Annotated[
    list[Path] | None, typer.Option("--policy", help="A policy override to measure; several are compared.")
]
Tasks = Annotated[str, typer.Option(help="Only these tasks, as in caption,ocr.")]
Limit = Annotated[int | None, typer.Option(min=1, max=MOST, help="Questions of each test at most.")]
MaxCost = Annotated[
    float | None, typer.Option(min=0.0, help="Dollars that all of it may cost, with earlier runs of these results.")
]
EstimateOnly = Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it spends.")]
Results = Annotated[Path, typer.Option(help="Where answers are kept as they come; run again, it goes on from there.")]
EndpointUrl = Annotated[
    str | None,
    typer.Option(help="An OpenAI-compatible base URL; otherwise CAPTIONS_ENDPOINT_URL, or the stack's endpoints."),
]
EmbeddingModel = Annotated[str | None, typer.Option(help="The endpoint's model that compares captions by meaning.")]
ModelsOverride = Annotated[
    Path | None, typer.Option(help="Models beside the packaged ones, as ModelsOverride has them.")
]
Root = Annotated[Path | None, typer.Option(help="Where the set's paths begin; its own folder by default.")]
ReportFile = Annotated[Path | None, typer.Option(help="An HTML file to write: plots, and the worst answers.")]
WritePolicy = Annotated[
    Path | None, typer.Option(help="A policy override to propose: the cheapest models that are good enough.")
]
Within = Annotated[
    float, typer.Option(min=0.0, max=100.0, help="Points below the best that are good enough for --write-policy.")
]
SideBySide = Annotated[int, typer.Option(min=1, max=64, help="Questions asked at the same time.")]


@app.command("run")
def run(
    ctx: typer.Context,
    labelled: LabelledSet,
    models: Models = "",
    policy: Policies = None,
    tasks: Tasks = "",
    limit: Limit = None,
    max_cost: MaxCost = None,
    dry_run: EstimateOnly = False,
    yes: Yes = False,
    results: Results = Path("evaluation.jsonl"),
    endpoint: EndpointUrl = None,
    embedding_model: EmbeddingModel = None,
    models_override: ModelsOverride = None,
    root: Root = None,
    report: ReportFile = None,
    write_policy: WritePolicy = None,
    within: Within = 2.0,
    side_by_side: SideBySide = 4,
) -> None:
    """Ask models about labelled media as uploads are asked about, and say which is how good, fast and dear."""
    _check_installed()
    from captions_cli.evaluate import labels, questions, running, summary
    from captions_cli.evaluate.journal import Journal
    from captions_cli.evaluate.progress import EvaluationProgress
    from captions_cli.evaluate.similarity import Embeddings

    given: Globals = ctx.obj
    names, files = _names(models), policy or []
    if write_policy is not None and (not names or len(files) > 1):
        raise CommandError("--write-policy needs --models, and one --policy at most", ExitCode.USAGE)
    for file in (report, write_policy):
        _check_writable(file, new=file is write_policy)
    where = _models(given, endpoint, models_override)
    items = labels.chosen(labels.read(labelled, root=root), tasks=_names(tasks), limit=limit)
    _check_known(names, where.catalogue)
    measured = questions.contenders(names, _rules(given, files, where.catalogue, endpoint))
    asked, left_out = questions.prepare(items, measured)
    _tell_left_out(left_out)
    if not asked:
        raise CommandError(f"nothing of {labelled} can be asked", ExitCode.USAGE)
    ceiling = None if max_cost is None else Decimal(str(max_cost))
    with Journal(results, where.urls) as journal:
        expected = _expected(asked, journal, where.catalogue, ceiling)
        if dry_run:
            _print_estimate(given, expected, journal)
            return
        if expected.questions and not yes and ceiling is None and sys.stdin.isatty():
            typer.confirm("Ask them?", abort=True, err=True)
        with EvaluationProgress(len({question.key for question in asked})) as progress:
            done = running.run(asked, journal, where, limit=ceiling, side_by_side=side_by_side, ended=progress.ended)
        embeddings = Embeddings(where.urls[0], where.keys[where.urls[0]], embedding_model, journal, ceiling)
        judged = summary.judge(asked, items, journal, embeddings.similarities)
        facts = {
            "set": str(labelled),
            "results": str(results),
            **summary.summarise(judged, measured),
            "left_out": [{"path": left.item.name, "task": left.item.task, "why": left.why} for left in left_out],
            "not_paid_for": done.unpaid,
            "spent": journal.spent,
            "calls_of_unknown_cost": journal.unknown,
            "embeddings": {"model": embeddings.model or None, "why_not": embeddings.why},
        }
    _write_report(report, facts, judged)
    if write_policy is not None:
        facts["policy"] = _propose(judged, measured[0].rules, within / 100, write_policy, where.catalogue)
    _print(given, facts)
    _end(done, facts, embeddings.why)


def _check_known(names: list[str], catalogue: Catalogue) -> None:
    if unknown := [name for name in names if name not in catalogue.models]:
        message = f"the catalogue has no model {unknown[0]!r}; --models-override can add it"
        raise CommandError(message, ExitCode.USAGE)


def _expected(asked: Sequence[Question], journal: Journal, catalogue: Catalogue, ceiling: Decimal | None) -> Estimate:
    """Return what the questions without an answer are expected to cost, and say it."""
    from captions_cli.evaluate import questions

    expected = questions.estimate([question for question in asked if not journal.answered(question.key)], catalogue)
    _tell_estimate(expected, len({question.key for question in asked}), journal.spent, ceiling)
    return expected


def _print_estimate(given: Globals, expected: Estimate, journal: Journal) -> None:
    from captions_cli import printing

    if given.json:
        facts = {
            "questions": expected.questions,
            "expected_cost": f"{expected.expected:f}",
            "largest_cost": f"{expected.most:f}",
            "models_without_price": list(expected.unpriced),
        }
        printing.print_json({"dry_run": True, **facts, "spent": journal.spent})


def _write_report(report: Path | None, facts: dict[str, Any], judged: list[JudgedAnswer]) -> None:
    if report is not None:
        from captions_cli.evaluate.report import html

        report.write_text(html(facts, judged), encoding="utf-8")
        say(f"{report} has the plots and the worst answers")


def _print(given: Globals, facts: dict[str, Any]) -> None:
    from captions_cli import printing
    from captions_cli.evaluate import tables

    if given.json:
        printing.print_json(facts)
        return
    printing.print_table(tables.contenders(facts))
    printing.print_table(tables.measures(facts))
    for line in tables.verdicts(facts):
        say(line)


def _check_writable(file: Path | None, *, new: bool) -> None:
    """Find out before anything is paid whether a file can be written."""
    if file is None:
        return
    if new and file.exists():
        raise CommandError(f"{file} is there already", ExitCode.USAGE)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise CommandError(f"{file} cannot be written: there is no such folder, or it is one", ExitCode.USAGE)


def _propose(
    judged: Sequence[JudgedAnswer], rules: Policy, within: float, file: Path, catalogue: Catalogue
) -> dict[str, Any]:
    from captions_cli import policies
    from captions_cli.evaluate import proposing

    proposals, undecided = proposing.propose(judged, rules, within)
    for group in undecided:
        say(f"{group.name}: no tier is proposed, as {group.why}")
    if proposals:
        text = proposing.document(proposals, undecided, within)
        policies.checked(text, catalogue=catalogue, where=str(file))
        file.write_text(text, encoding="utf-8")
        named = ", ".join(proposal.name for proposal in proposals)
        say(f"{file} proposes tiers for {named}; `captions policy check` reads it")
    return {
        "file": str(file) if proposals else None,
        "first": {proposal.name: proposal.models[0] for proposal in proposals},
        "undecided": {group.name: group.why for group in undecided},
    }


def _end(done: Run, facts: dict[str, Any], why_no_meaning: str | None) -> None:
    if why_no_meaning is not None and any("cider_d" in test["measures"] for test in _tests(facts)):
        say(f"captions are compared by CIDEr-D alone: {why_no_meaning}")
    if done.unpaid:
        say(f"{done.unpaid} questions were not asked: --max-cost leaves no room for them")
    if failed := done.states["failed"]:
        say(f"{failed} questions found no model; run again to ask them")
    if done.account is not None:
        raise CommandError(f"the endpoint takes no more calls: {done.account}", ExitCode.UNREACHABLE)
    if done.stopped:
        say("stopped; run again to go on from here")
        raise KeyboardInterrupt
    if done.unpaid or done.states["failed"]:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


def _tests(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [test for contender in facts["contenders"] for test in contender["tests"].values()]


def _models(given: Globals, endpoint: str | None, override: Path | None) -> AskedModels:
    """Where to ask: the endpoint that was given, with the key of the environment alone, or the stack's."""
    from captions.gateway.api_keys import NO_KEY
    from captions_cli import endpoint_models
    from captions_cli.evaluate.running import AskedModels

    url = endpoint or os.environ.get(endpoint_models.URL_VARIABLE)
    if url:
        urls = [part.strip().rstrip("/") for part in url.split(",") if part.strip()]
        if not urls or not all(address.startswith(("http://", "https://")) for address in urls):
            raise CommandError(f"{url!r} is no base URL of an endpoint", ExitCode.USAGE)
        key = os.environ.get(endpoint_models.KEY_VARIABLE) or NO_KEY
        return AskedModels(tuple(urls), dict.fromkeys(urls, key), endpoint_models.catalogue_with(override))
    stack = given.stack()
    urls = endpoint_models.endpoints(stack, os.environ)
    keys = {address: endpoint_models.key(stack, address, os.environ) for address in urls}
    catalogue = endpoint_models.catalogue_with(override) if override else endpoint_models.catalogue_of(stack)
    return AskedModels(tuple(urls), keys, catalogue)


def _rules(given: Globals, files: list[Path], catalogue: Catalogue, endpoint: str | None) -> dict[str, Policy]:
    from captions_cli import policies

    if files:
        chosen = {}
        for file in files:
            name = file.stem if file.stem not in chosen else str(file)
            chosen[name] = policies.checked(text_of(file), catalogue=catalogue, where=str(file))
        return chosen
    return {"policy": policies.of(given.stack()) if given.has_stack() and not endpoint else policies.checked(None)}


def _tell_left_out(left_out: list[LeftOut]) -> None:
    for question in left_out[:10]:
        say(f"left out: {question.item.name} ({question.item.task}): {question.why}")
    if len(left_out) > 10:
        say(f"left out: {len(left_out) - 10} more, see --output json")


def _tell_estimate(expected: Estimate, questions: int, spent: Decimal, ceiling: Decimal | None) -> None:
    from captions_cli.rendering import money

    before = f", {questions - expected.questions} answered already" if questions != expected.questions else ""
    say(
        f"{expected.questions} questions{before}; about {money(expected.expected)}, {money(expected.most)} if answers "
        f"are as long as they may be, without repairs and steps up"
    )
    if expected.unpriced:
        say(f"without a published price, and not in these sums: {', '.join(expected.unpriced)}")
        if ceiling is not None:
            say("--max-cost takes $3.00 per million tokens where no price is published and the endpoint names no cost")
    if spent:
        say(f"{money(spent)} were spent before")


def _check_installed() -> None:
    from importlib.util import find_spec

    if missing := [
        name for name in ("jinja2", "jiwer", "rapidfuzz", "snowballstemmer", "numpy") if find_spec(name) is None
    ]:
        message = f"{', '.join(missing)}: not installed; `pip install 'media-captions[evaluate]'` brings what is needed"
        raise CommandError(message, ExitCode.USAGE)


def _names(given: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


@app.command("sample")
def sample(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the set goes; it must be empty, or not be.")],
    stack_name: Annotated[
        str | None, typer.Option("--from", help="The stack; as for other commands by default.")
    ] = None,
    number: Annotated[int, typer.Option("--n", min=1, max=MOST, help="Uploads at most.")] = 500,
    prefix: Prefix = "",
    days: Days = 365,
    accepted: Annotated[
        bool, typer.Option("--accepted", help="Models' captions too that people found right; they favour those models.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Another one draws others.")] = 0,
) -> None:
    """Draw a labelled set from a stack: uploads that people captioned in their own words, which are the truth."""
    from dataclasses import replace

    from captions_cli import printing
    from captions_cli.evaluate import sampling

    given: Globals = ctx.obj
    if stack_name is not None:
        given = replace(given, choice=replace(given.choice, stack_name=stack_name))
    drawn = sampling.sample(given.stack(), folder, number, seed=seed, prefix=prefix, days=days, accepted=accepted)
    if given.json:
        printing.print_json({"folder": str(folder), **vars(drawn)})
    else:
        say(f"{drawn.drawn} of {drawn.fitting} uploads that people spoke about are in {folder}")
    if drawn.gone:
        say(f"{drawn.gone} could not be read any more")
    if not drawn.drawn:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)
