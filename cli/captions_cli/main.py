"""The `captions` command."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from captions_cli.errors import CommandError, ExitCode, explain
from captions_cli.loopback import LOCAL_CREDENTIALS, proxy_exception
from captions_cli.printable import printable_lines
from captions_cli.stack import Choice, LocalState, Stack, connect, home

if TYPE_CHECKING:
    from captions.gateway.catalogue import Catalogue
    from captions_cli.background import Settings

INTERRUPTED = 130
"""What a shell reports for Ctrl-C (128 + SIGINT)."""
TERMINATED = 143
"""What a shell reports for SIGTERM (128 + SIGTERM)."""
GLOBAL_OPTIONS = ("--output", "-o", "--profile", "--region", "--stack-name")
ATTACHED = (*(f"{name}=" for name in GLOBAL_OPTIONS if name.startswith("--")), "-o")
"""How they begin with their value attached: --output=json, -ojson."""
EXIT_CODES = """Exit codes: 0 done (after upload: everything is captioned), 1 some upload is not captioned,
or doctor found a problem, 2 usage, 3 no such stack or it does not answer, 4 time ran out, 5 AWS refused,
130 interrupted."""


class Form(StrEnum):
    """What `captions get --format` prints."""

    TEXT = "text"
    VTT = "vtt"
    SRT = "srt"


class CaptionsGroup(TyperGroup):
    """Takes the global options before and after the command's name, and tells errors in one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move global options to the front, up to a `--`."""
        front, rest = _hoisted(args)
        return super().parse_args(ctx, [*front, *rest])

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it cannot do ends in a line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except CommandError as error:
            _fail(error)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader, such as head, has seen enough; what is still buffered has nowhere to go.
            sys.stderr.close()
            raise typer.Exit(ExitCode.DONE) from None
        except Exception as error:
            told = explain(error)
            if told is None:
                raise
            _fail(told)


def _hoisted(args: list[str]) -> tuple[list[str], list[str]]:
    front: list[str] = []
    rest: list[str] = []
    waiting = list(args)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return front, [*rest, word, *waiting]
        if word in GLOBAL_OPTIONS:
            front += [word, *waiting[:1]]
            del waiting[:1]
        elif word.startswith(ATTACHED):
            front.append(word)
        else:
            rest.append(word)
    return front, rest


def _fail(error: CommandError) -> NoReturn:
    typer.echo(f"captions: {printable_lines(error.message)}", err=True)
    raise typer.Exit(error.exit_code)


app = typer.Typer(
    cls=CaptionsGroup,
    help=f"Upload media, receive captions: on this machine or on AWS.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class Globals:
    """What was said for every command."""

    output: Literal["table", "json"] = "table"
    choice: Choice = field(default_factory=Choice)

    @property
    def json(self) -> bool:
        """Whether stdout is to be JSON."""
        return self.output == "json"

    def stack(self) -> Stack:
        """The stack the command is about."""
        return connect(self.choice, home())


@app.callback()
def _globals(
    ctx: typer.Context,
    output: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="What stdout holds; progress goes to stderr.")
    ] = "table",
    profile: Annotated[str | None, typer.Option(help="AWS profile; means a deployed stack.")] = None,
    region: Annotated[
        str | None, typer.Option(help="AWS region; means a deployed stack (`up`: the local one's).")
    ] = None,
    stack_name: Annotated[
        str | None, typer.Option(help="CloudFormation stack; means a deployed stack (`up`: the local one's).")
    ] = None,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        # Keys and captions hold any character; a terminal of another encoding gets escapes instead of a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    ctx.obj = Globals(output, Choice(stack_name, region, profile))


@app.command()
def up(
    ctx: typer.Context,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C ends it.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the AWS endpoint; 0 is any free one.")] = 0,
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency_scale: Annotated[
        float, typer.Option(min=0.0, help="Factor on the local model endpoint's latencies; 1 is as in reality.")
    ] = 0.1,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter of template.yaml.")
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="No stack yet: AWS's APIs alone, for `sam deploy` and `captions deploy`.")
    ] = False,
) -> None:
    """Start the whole stack on this machine; it stays up until `captions down`."""
    from captions_cli import background

    given: Globals = ctx.obj
    settings = replace(_local_settings(given, port, bind, latency_scale, parameter or []), empty=empty)
    if (state := background.running(home())) is not None:
        _say("the local stack is already up; `captions down` ends it")
        _print_local(given, state)
        return
    with _ending_in_order():
        if foreground:
            code = background.run_in_foreground(home(), settings, lambda state: _print_local(given, state))
            raise typer.Exit(ExitCode.DONE if code == 0 else ExitCode.UNREACHABLE)
        _print_local(given, background.start(home(), settings, progress=_say))


@app.command()
def down() -> None:
    """End the local stack and what it holds."""
    from captions_cli import background

    _say("the local stack is down" if background.stop(home()) else "no local stack was up")


@app.command()
def status(ctx: typer.Context) -> None:
    """Show whether the stack is up, its queues, dead letters, uploads by state, and the alarms that ring."""
    from captions_cli import alarms, listing, redriving, rendering

    given: Globals = ctx.obj
    stack = given.stack()
    sqs = stack.client("sqs")
    names = [name for name in stack.outputs if name.endswith("QueueUrl")]
    depths = {name.removesuffix("QueueUrl"): redriving.depth(sqs, stack.output(name)) for name in sorted(names)}
    counts, complete = listing.count(stack)
    watched = alarms.look(stack)
    if given.json:
        rendering.print_json(
            {
                "stack": stack.name,
                "region": stack.region,
                "aws_endpoint_url": stack.endpoint_url,
                "bucket": stack.bucket,
                "queues": depths,
                "uploads": counts,
                "uploads_complete": complete,
                "alarms": vars(watched),
            }
        )
        return
    _say(f"{stack.where} is up, bucket {stack.bucket}")
    rendering.print_table(rendering.queue_depths(depths))
    rendering.print_table(rendering.state_counts(counts, complete=complete))
    for name in watched.ringing:
        _say(f"in ALARM: {name}")
    if watched.why is not None:
        _say(f"whether alarms ring is not known: {watched.why}")
    elif not watched.ringing:
        _say(f"none of {watched.all} alarms rings")


@app.command()
def doctor(ctx: typer.Context) -> None:
    """Look for what keeps the stack from captioning, and say what to do; exit code 1 when something does."""
    from captions_cli import doctor as examination
    from captions_cli import rendering

    given: Globals = ctx.obj
    stack = given.stack()
    found = list(examination.examine(stack))
    if given.json:
        rendering.print_json([vars(finding) for finding in found])
    else:
        rendering.print_table(rendering.findings([vars(finding) for finding in found]))
    problems = sum(1 for finding in found if finding.level == "problem")
    unknown = sum(1 for finding in found if finding.level == "unknown")
    _say(f"{problems} problems" + (f", {unknown} questions without an answer" if unknown else ""))
    if problems:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@app.command()
def upload(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Files, and directories with all they hold.")],
    prefix: Annotated[str, typer.Option(help="Put in front of every key, as it is.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the captions.")] = True,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Upload files and follow them until each has its caption, or a reason why not."""
    from captions_cli import rendering
    from captions_cli.progress import Progress
    from captions_cli.uploading import Sent, plan, send
    from captions_cli.watching import Watch

    given: Globals = ctx.obj
    planned = plan(files, prefix)
    stack = given.stack()
    with Progress(len(planned)) as progress:
        answers = send(stack, planned, progress.sent)
        sent = [answer for answer in answers if isinstance(answer, Sent)]
        watch = Watch(stack, sent)
        in_time = watch.until_ended(timeout, progress.seen) if wait else True
    rows = [
        rendering.upload(file, answer, watch.seen.get(file.key)) for file, answer in zip(planned, answers, strict=True)
    ]
    if given.json:
        rendering.print_json(rows)
    else:
        rendering.print_table(rendering.uploads(rows))
    if not in_time:
        _say(f"{len(watch.pending)} of {len(sent)} uploads were still on their way after {timeout:g} s")
        raise typer.Exit(ExitCode.TIMEOUT)
    wanted = "captioned" if wait else "uploaded"
    if any(row["state"] != wanted for row in rows):
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@app.command("ls")
def list_records(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only these states; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Records at most.")] = 50,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    days: Annotated[int, typer.Option(min=1, help="How many days back to look.")] = 7,
) -> None:
    """List uploads: those on their way, then those that ended, newest first."""
    from itertools import islice

    from captions_cli import listing, rendering

    given: Globals = ctx.obj
    states = _states(state)
    stack = given.stack()
    chunk = min(listing.READ_AHEAD, limit)
    found = list(islice(listing.recent(stack, states=states, prefix=prefix, days=days, chunk=chunk), limit))
    if given.json:
        rendering.print_json([rendering.summary(record) for record in found])
        return
    if not found:
        _say(f"no {'such ' if state or prefix else ''}uploads in the last {days} days; --days looks further back")
        return
    rendering.print_table(rendering.records(found))


@app.command()
def costs(
    ctx: typer.Context,
    by: Annotated[Literal["day", "model", "task", "prefix"], typer.Option(help="What to add up by.")] = "day",
    days: Annotated[int, typer.Option(min=1, help="How many days back to look.")] = 30,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    at_most: Annotated[int, typer.Option(min=1, help="Records read at most.")] = 100_000,
) -> None:
    """Show what the models cost and what the cache saved; unknown costs are counted, never taken for zero."""
    from itertools import islice

    from captions_cli import listing, rendering
    from captions_cli.spending import spending

    given: Globals = ctx.obj
    stack = given.stack()
    records = listing.recent(stack, prefix=prefix, days=days)
    groups, total = spending(islice(records, at_most), by)
    complete = next(records, None) is None
    if given.json:
        rendering.print_json(
            {
                "stack": stack.name,
                "days": days,
                "by": by,
                "groups": [{by: name, **group.as_dict()} for name, group in groups],
                "total": total.as_dict(),
                "complete": complete,
            }
        )
        return
    if not total.uploads:
        _say(f"no uploads in the last {days} days; --days looks further back")
        return
    rendering.print_table(rendering.spendings(by, groups, total))
    if not complete:
        _say(f"only the first {at_most} records were read; --at-most reads more")


@app.command()
def get(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="The key, or s3://BUCKET/KEY.")],
    form: Annotated[
        Form | None, typer.Option("--format", help="Only the words: as text, or as subtitles with times.")
    ] = None,
) -> None:
    """Show everything that is known about one upload, or print its words alone."""
    from captions_cli import listing, rendering, subtitles

    given: Globals = ctx.obj
    record = listing.get(given.stack(), key)
    if form is not None:
        words = subtitles.words(record, form.value)
        # A file gets the words as they are.
        typer.echo(printable_lines(words) if sys.stdout.isatty() else words, nl=False)
    elif given.json:
        rendering.print_json(rendering.whole(record))
    else:
        rendering.print_table(rendering.details(record))


@app.command()
def redrive(
    ctx: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEYS]...", help="Only these uploads.")] = None,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    state: Annotated[
        list[str] | None, typer.Option("--state", help="failed (the default), blocked; may be given twice.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How many days back to look.")] = 30,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters/--no-dead-letters", help="Move the dead-letter queues' messages back too.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Try failed uploads again, and move the messages of the dead-letter queues back."""
    from captions_cli import redriving, rendering

    given: Globals = ctx.obj
    states = tuple(state or ["failed"])
    if unknown := [name for name in states if name not in redriving.REOPENED]:
        raise CommandError(
            f"{unknown[0]} uploads cannot be tried again; --state takes {' and '.join(redriving.REOPENED)}",
            ExitCode.USAGE,
        )
    stack = given.stack()
    found = list(redriving.failed(stack, keys=keys or [], prefix=prefix, states=states, days=days))
    if not dry_run:
        for record in found:
            redriving.retry(stack, record)
    # A choice of uploads is about those alone.
    everything = dead_letters and not keys and not prefix
    moved = redriving.empty_dead_letters(stack, dry_run=dry_run) if everything else []
    if given.json:
        rendering.print_json(
            {
                "dry_run": dry_run,
                "uploads": [record.key for record in found],
                "dead_letters": [vars(queue) for queue in moved],
            }
        )
    else:
        verb = "would be tried again" if dry_run else "on their way again"
        _say(f"{len(found)} uploads {verb}")
        if found:
            rendering.print_table(rendering.records(found))
        for queue in moved:
            _say(rendering.moved(queue.queue, queue.messages, started=queue.started, problem=queue.problem))
    if any(queue.problem for queue in moved):
        raise typer.Exit(ExitCode.AWS)


@app.command()
def reconcile(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    older_than: Annotated[
        float, typer.Option(min=0.0, help="Seconds; a younger object's event may still be on its way.")
    ] = 900.0,
    max_cost: Annotated[
        float | None, typer.Option(min=0.0, help="Dollars; sends no more uploads than are estimated to cost that.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Sends no more uploads than that.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, and estimate the cost.")] = False,
) -> None:
    """Find objects whose events never came, such as those from before the stack, and have them captioned."""
    from itertools import islice

    from captions_cli import reconciling, rendering

    given: Globals = ctx.obj
    stack = given.stack()
    tally = reconciling.Tally()
    each = reconciling.average_cost(stack)
    most = limit
    if max_cost is not None:
        if each is None:
            raise CommandError(
                "the cost cannot be estimated: no caption of this stack has a known one; caption a few first",
                ExitCode.USAGE,
            )
        fits = int(max_cost / float(each)) if each else None
        most = fits if most is None else most if fits is None else min(most, fits)
    found = reconciling.compare(stack, tally, prefix=prefix, older_than=older_than)
    if dry_run:
        for _ in found:
            pass
    else:
        reconciling.send(stack, islice(found, most), tally)
    lost = tally.lost["missing"] + tally.lost["replaced"]
    estimate = None if each is None else each * (lost if dry_run else tally.sent)
    if given.json:
        rendering.print_json(
            {"dry_run": dry_run, **vars(tally), "average_cost": each, "estimated_cost": estimate, "limit": most}
        )
        return
    rendering.print_table(rendering.tally(vars(tally)))
    if not dry_run:
        _say(f"{tally.sent} events sent to the uploads queue")
        if most is not None and tally.sent >= most:
            _say("there may be more: the bucket was not walked to its end; run again to go on")
    if estimate is not None and each is not None:
        _say(f"about ${estimate:.4f} at most: {each:.6f} a caption lately; copies cost nothing")
    elif lost:
        _say("the cost cannot be estimated: no caption of this stack has a known one yet")


bucket_app = typer.Typer(no_args_is_help=True, help="Buckets that exist already.")
app.add_typer(bucket_app, name="bucket")


@bucket_app.command("connect")
def connect_bucket(
    ctx: typer.Context,
    bucket: Annotated[str, typer.Argument(help="The bucket's name.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
) -> None:
    """Let a bucket tell EventBridge of its events; its other notifications stay as they are."""
    from captions_cli import notifications, rendering

    given: Globals = ctx.obj
    # The stack need not be there yet: its first deployment may name this bucket.
    done = notifications.connect(given.stack().client("s3"), bucket, dry_run=dry_run)
    if given.json:
        rendering.print_json({"dry_run": dry_run, **vars(done)})
        return
    if not done.changed:
        _say(f"{bucket} tells EventBridge of its events already")
    else:
        _say(f"{bucket} {'would tell' if dry_run else 'tells'} EventBridge of its events")
    for other in done.others:
        _say(f"kept: {other}")


@app.command()
def deploy(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ENVIRONMENTS]...", help="Of samconfig.toml; all without any.")
    ] = None,
    canary: Annotated[
        str | None, typer.Option(help="The environment that goes first; the first one by default.")
    ] = None,
    template: Annotated[Path, typer.Option(help="The built template.")] = Path(".aws-sam/build/template.yaml"),
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter for every environment.")
    ] = None,
    one_by_one: Annotated[bool, typer.Option("--one-by-one", help="No two environments at the same time.")] = False,
    bake: Annotated[float, typer.Option(min=0.0, help="Seconds for which a stack's alarms are watched.")] = 60.0,
    upload_timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds that the upload after each deployment may take; 0 uploads nothing.")
    ] = 300.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the change sets and the drift of each environment.")
    ] = False,
) -> None:
    """Deploy to samconfig.toml's environments: the canary first, checked by an upload and its alarms, then the rest.

    Stops at the first wave that fails; run again, it goes on where it stopped.
    """
    from captions_cli import background, deploying, drift, rendering

    given: Globals = ctx.obj
    root = background.project_root()
    built = (root / template).resolve()
    if not built.is_file():
        raise CommandError(f"{built} is not there; `make build` builds it", ExitCode.USAGE)
    if given.choice.stack_name is not None or given.choice.region is not None:
        raise CommandError("samconfig.toml says which stack of which region; name its environments", ExitCode.USAGE)
    chosen = deploying.choose(deploying.environments(root / "samconfig.toml"), names or [], canary)
    plan = deploying.Plan(
        root=root,
        template=built,
        sam=deploying.find_sam(root),
        waves=deploying.waves(chosen, one_by_one=one_by_one),
        parameters=_pairs(parameter or []),
        profile=given.choice.profile,
    )
    ledger = deploying.Ledger(home() / deploying.STATE_FILE, plan)
    checks = deploying.Checks(bake, upload_timeout)
    deployer = deploying.Deployer(plan, ledger, checks, home() / "deploy", _say)
    if dry_run:
        previews = {it.name: deployer.preview(it) for it in plan.all}
        drifts = {it.name: drift.detect(deployer.stack(it)) for it in plan.all}
        if given.json:
            rendering.print_json(
                {
                    name: {
                        "changes": changes,
                        "drift": [vars(resource) for resource in drifts[name].resources],
                        "drift_unknown": drifts[name].why or None,
                    }
                    for name, changes in previews.items()
                }
            )
            return
        for name, changes in previews.items():
            _say(f"{name}: {len(changes)} changes" if changes else f"{name}: nothing to change")
            if changes:
                rendering.print_table(rendering.changes(changes))
            if not drifts[name].known:
                _say(f"{name}: drift cannot be told: {drifts[name].why}")
            for resource in drifts[name].resources:
                _say(f"{name}: drifted: {resource.logical_id} ({resource.status}): {resource.difference}")
        return
    done = deployer.run()
    standings = [vars(ledger.standing[it.name]) for it in plan.all]
    if given.json:
        rendering.print_json(standings)
    else:
        rendering.print_table(rendering.standings(standings))
    if not done:
        _say("stopped; `captions deploy` with the same build and parameters goes on from here")
        raise typer.Exit(ExitCode.AWS)


_MODELS = "A models override to go by; otherwise the stack's, where there is one."


def _has_stack(given: Globals) -> bool:
    return given.choice.names_a_deployed_stack or (home() / "stack.json").exists()


def _catalogue(given: Globals, models: Path | None) -> "Catalogue":
    """The models that a command knows: a file's, the stack's, or the packaged ones alone."""
    from captions_cli import endpoint_models

    if models is None and _has_stack(given):
        return endpoint_models.catalogue_of(given.stack())
    return endpoint_models.catalogue_with(models)


policy_app = typer.Typer(no_args_is_help=True, help="What is asked about which upload, of which models.")
app.add_typer(policy_app, name="policy")


@policy_app.command("check")
def check_policy(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML that is to be laid over the packaged policy.")],
    models: Annotated[Path | None, typer.Option(help=_MODELS)] = None,
) -> None:
    """Check a policy before it is put where the functions read it; exit code 2 names the place that is wrong."""
    from captions_cli import policies, rendering

    given: Globals = ctx.obj
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}", ExitCode.USAGE) from error
    found = policies.checked(text, catalogue=_catalogue(given, models), where=str(file))
    if given.json:
        rendering.print_json(found.model_dump(mode="json"))
    else:
        _say(f"{file} is a policy")


@policy_app.command("show")
def show_policy(ctx: typer.Context) -> None:
    """Show the policy the stack works by: the packaged one, its parameters, its override."""
    from captions_cli import policies, rendering

    given: Globals = ctx.obj
    found = policies.of(given.stack()).model_dump(mode="json", exclude_none=True)
    if given.json:
        rendering.print_json(found)
    else:
        rendering.print_table(rendering.flat(found))


@app.command()
def route(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A picture, recording or video on this machine.")],
    key: Annotated[str | None, typer.Option(help="The key it would have; its name by default.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="NAME=VALUE", help="As in --metadata caption-task=ocr.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="As in --tag caption:task=ocr.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A policy override to try; otherwise the stack's policy, where there is one.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help=_MODELS)] = None,
) -> None:
    """Explain what would become of a file: task, looks, models, expected tokens and cost. Nothing is uploaded."""
    from captions_cli import policies, rendering

    given: Globals = ctx.obj
    catalogue = _catalogue(given, models)
    if policy is not None:
        try:
            text = policy.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{policy} cannot be read: {error}", ExitCode.USAGE) from error
        rules = policies.checked(text, catalogue=catalogue, where=str(policy))
    elif _has_stack(given):
        rules = policies.of(given.stack())
    else:
        rules = policies.checked(None)
    told = policies.explain(
        file,
        key or file.name,
        rules,
        catalogue,
        metadata=_pairs(metadata or [], "--metadata"),
        tags=_pairs(tag or [], "--tag"),
    )
    facts = rendering.explanation(told)
    if given.json:
        rendering.print_json(facts)
    else:
        rendering.print_table(rendering.flat(facts))
    if told.rejected is not None:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@app.command()
def recaption(
    ctx: typer.Context,
    missing: Annotated[bool, typer.Option("--missing", help="Objects that have no record.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Captions of an older prompt (policy: recaption).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Every caption.")] = False,
    prefix: Annotated[str, typer.Option(help="Only keys that begin so.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--run", help="Only count them and say what they may cost.")
    ] = True,
    max_cost: Annotated[
        float | None,
        typer.Option(min=0.0, help="Dollars that all may cost together; stops before. Unknown prices are left out."),
    ] = None,
) -> None:
    """Caption uploads anew. What a person wrote or accepted stays; a new answer is stored beside it."""
    from decimal import Decimal

    from captions_cli import endpoint_models, policies, recaptioning, rendering

    given: Globals = ctx.obj
    chosen: list[recaptioning.Mode] = []
    if missing:
        chosen.append("missing")
    if stale:
        chosen.append("stale")
    if force:
        chosen.append("force")
    if len(chosen) != 1:
        raise CommandError("give one of --missing, --stale and --force", ExitCode.USAGE)
    stack = given.stack()
    catalogue = endpoint_models.catalogue_of(stack)
    found = list(recaptioning.due(stack, chosen[0], prefix, policies.of(stack), catalogue))
    left_out, sent = 0, 0
    spent: recaptioning.Spent | None = None
    if max_cost is not None and not dry_run:
        spent = recaptioning.send_within(stack, found, chosen[0], Decimal(str(max_cost)))
        left_out, sent = spent.left_out, spent.sent
    else:
        if max_cost is not None:
            found, left_out = recaptioning.within(found, Decimal(str(max_cost)))
        sent = 0 if dry_run else sum(recaptioning.send(stack, one, chosen[0]) for one in found)
    known = [one.dollars for one in found if one.dollars is not None]
    dollars = sum(known, Decimal(0))
    most = sum((one.most for one in found if one.most is not None), Decimal(0))
    unpriced = sorted({model for one in found for model in one.unpriced})
    if given.json:
        rendering.print_json(
            {
                "dry_run": dry_run,
                "uploads": [
                    {"key": one.key, "why": one.why, "model": one.model, "cost": one.dollars, "largest_cost": one.most}
                    for one in found
                ],
                "sent": sent,
                "left_out": left_out,
                "expected_cost": f"{dollars:f}",
                "largest_cost": f"{most:f}",
                "without_known_price": len(found) - len(known),
                "models_without_price": unpriced,
                "spent": f"{spent.dollars:f}" if spent else None,
                "calls_of_unknown_cost": spent.unknown if spent else None,
                "on_their_way": spent.on_their_way if spent else None,
            }
        )
        return
    unknown = f" and {len(found) - len(known)} at a price not published" if len(known) < len(found) else ""
    number = len(found) if dry_run else sent
    verb = "would be captioned anew" if dry_run else f"on {'its' if number == 1 else 'their'} way"
    what = f"{number} {'upload' if number == 1 else 'uploads'} {verb}"
    if spent is None:
        _say(
            f"{what}, for about {rendering.money(dollars)}, {rendering.money(most)} with repairs and steps up{unknown}"
        )
    else:
        unknown = f" and {spent.unknown} calls at a cost not known" if spent.unknown else ""
        rest = f", {spent.on_their_way} of them not captioned yet" if spent.on_their_way else ""
        _say(f"{what}{rest}; {rendering.money(spent.dollars)} was spent so far{unknown}")
        if spent.patience_ended:
            _say(f"nothing ended for {recaptioning.PATIENCE_SECONDS:.0f} s, so no more was sent")
    if unpriced:
        _say(f"without a published price, and not in these sums: {', '.join(unpriced)}")
    if left_out:
        _say(f"{left_out} more would go beyond --max-cost, or have no known price")
    if found:
        rendering.print_table(rendering.due(found))


@app.command()
def edit(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="The key, or s3://BUCKET/KEY.")],
    text: Annotated[str, typer.Argument(help="The caption in your words.")],
    language: Annotated[str | None, typer.Option(help="BCP 47 tag of your words; as before by default.")] = None,
) -> None:
    """Put your words in the place of a caption; no model ever overwrites them."""
    from captions.config.policy import is_language
    from captions_cli import rendering, reviewing

    given: Globals = ctx.obj
    if language is not None and not is_language(language):
        raise CommandError(f"{language!r} is no BCP 47 language tag", ExitCode.USAGE)
    record = reviewing.edit(given.stack(), key, text, language)
    if given.json:
        rendering.print_json(rendering.summary(record))
    else:
        _say(f"{rendering.one_line(record.key)} has your words")


@app.command()
def accept(ctx: typer.Context, key: Annotated[str, typer.Argument(help="The key, or s3://BUCKET/KEY.")]) -> None:
    """Say that a caption is right: it stays, and its model is trusted more."""
    from captions_cli import rendering, reviewing

    given: Globals = ctx.obj
    record = reviewing.accept(given.stack(), key)
    if given.json:
        rendering.print_json(rendering.summary(record))
    else:
        _say(f"the caption of {rendering.one_line(record.key)} is accepted")


@app.command()
def models(ctx: typer.Context) -> None:
    """Show the model catalogue beside what the stack's endpoint offers."""
    from captions_cli import endpoint_models, rendering

    given: Globals = ctx.obj
    offers = endpoint_models.compare(given.stack())
    if given.json:
        rendering.print_json([rendering.offer(offer.endpoint, offer.catalogue, offer.comparison) for offer in offers])
        return
    for offer in offers:
        _say(f"models at {offer.endpoint}")
        rendering.print_table(rendering.models(offer.catalogue, offer.comparison))
        if offer.comparison.new:
            _say(f"{len(offer.comparison.new)} more that the catalogue does not know, see --output json")


@app.command("alt-texts")
def alt_texts(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSON lines: an id, and what is written about the picture.")],
    model: Annotated[list[str] | None, typer.Option(help="Models in order; a long context serves best.")] = None,
    language: Annotated[str, typer.Option(help="Language of the alt texts (BCP-47).")] = "en",
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds in all.")] = 600.0,
) -> None:
    """Write alt texts in bulk from what is written about pictures; JSON lines, one for each item in its order."""
    from captions.tasks.languages import tag
    from captions_cli import alt_texts as bulk
    from captions_cli import rendering

    given: Globals = ctx.obj
    standard = tag(language)
    if standard is None:
        raise CommandError(f"{language!r} is no language tag (BCP-47)", ExitCode.USAGE)
    items = bulk.items_of(file)
    done = bulk.written(
        given.stack(), items, model or ["GLM-4-Plus", "deepseek-ai/DeepSeek-V4-Flash"], standard, timeout
    )
    for one in done.items:
        rendering.print_json_text(one.model_dump_json(exclude_defaults=True))
    missing = sum(one.text is None for one in done.items)
    cost = "a cost that is not known in full" if done.cost is None else rendering.money(done.cost)
    calls = "1 call" if done.calls == 1 else f"{done.calls} calls"
    _say(f"{len(done.items) - missing} of {len(done.items)} alt texts in {calls}, for {cost}")
    if missing:
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@app.command()
def demo(
    ctx: typer.Context,
    latency_scale: Annotated[
        float, typer.Option(min=0.0, help="Factor on the local model endpoint's latencies; 1 is as in reality.")
    ] = 0.1,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter of template.yaml.")
    ] = None,
) -> None:
    """Upload real media to a stack of the demo's own on this machine, watch it, and check how each upload ended."""
    import os

    from captions_cli import demo as demonstration
    from captions_cli import rendering
    from captions_cli.demo_view import LiveAudience, as_json, print_report
    from captions_cli.endpoint_models import URL_VARIABLE

    given: Globals = ctx.obj
    settings = _local_settings(given, 0, "127.0.0.1", latency_scale, parameter or [])
    real = bool(os.environ.get(URL_VARIABLE))
    if not real:
        settings = replace(settings, parameters={**demonstration.PRICED_MODELS, **settings.parameters})
    directory = home() / "demo"
    with _ending_in_order(), LiveAudience() as audience:
        report = demonstration.run(settings, directory, audience, real_endpoint=real)
    if given.json:
        rendering.print_json(as_json(report))
    else:
        print_report(report)
    for problem in report.problems:
        typer.echo(f"captions: {printable_lines(problem)}", err=True)
    if report.problems:
        _say(f"the stack's logs are in {directory}")
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM unwind the command as Ctrl-C does, so that what it started is ended."""

    def end(*_: object) -> NoReturn:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _local_settings(given: Globals, port: int, bind: str, latency_scale: float, parameters: list[str]) -> "Settings":
    from captions_cli.background import Settings
    from captions_cli.stack import DEFAULT_LOCAL_REGION, DEFAULT_STACK_NAME

    if given.choice.profile is not None:
        raise CommandError("the local stack knows no AWS profile", ExitCode.USAGE)
    return Settings(
        port=port,
        bind=bind,
        latency_scale=latency_scale,
        stack_name=given.choice.stack_name or DEFAULT_STACK_NAME,
        region=given.choice.region or DEFAULT_LOCAL_REGION,
        parameters=_pairs(parameters),
    )


def _pairs(parameters: list[str], option: str = "--parameter") -> dict[str, str]:
    values = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals or not name:
            raise CommandError(f"{option} takes NAME=VALUE, not {parameter!r}", ExitCode.USAGE)
        values[name] = value
    return values


def _states(given: list[str] | None) -> tuple[str, ...]:
    from captions_cli.listing import STATES

    if unknown := [name for name in given or [] if name not in STATES]:
        raise CommandError(f"there is no state {unknown[0]!r}; states are {', '.join(STATES)}", ExitCode.USAGE)
    return tuple(given or STATES)


def _print_local(given: Globals, state: LocalState) -> None:
    from captions_cli import rendering

    env = {
        **proxy_exception(state.aws_endpoint_url),
        **LOCAL_CREDENTIALS,
        "AWS_DEFAULT_REGION": state.region,
    }
    if given.json:
        rendering.print_json({**vars(state), "env": env})
        return
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
    if not state.bucket:
        typer.echo(f"AWS endpoint     {state.aws_endpoint_url}")
        typer.echo(f"model endpoint   {state.model_endpoint_url}")
        typer.echo()
        typer.echo("deploy to it:")
        typer.echo(f"  export {variables} AWS_ENDPOINT_URL={state.aws_endpoint_url}")
        typer.echo(f"  captions deploy --parameter EndpointUrls={state.model_endpoint_url}")
        return
    typer.echo(f"S3 endpoint      {state.aws_endpoint_url}")
    typer.echo(f"bucket           {state.bucket}")
    typer.echo(f"model endpoint   {state.model_endpoint_url}")
    typer.echo()
    typer.echo("upload with the AWS CLI:")
    typer.echo(f"  {variables} aws --endpoint-url {state.aws_endpoint_url} s3 cp FILE s3://{state.bucket}/")
    typer.echo("then see its caption:")
    typer.echo("  captions ls")


def _say(text: str) -> None:
    typer.echo(printable_lines(text), err=True)


if __name__ == "__main__":
    app()
