"""The stack on this machine: `up`, `down` and `demo`; and the console of any stack."""

import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from captions_cli.commands.options import Globals, Parameters, pairs, say
from captions_cli.errors import CommandError, ExitCode
from captions_cli.loopback import LOCAL_CREDENTIALS, proxy_exception
from captions_cli.stack import (
    DEFAULT_LOCAL_REGION,
    DEFAULT_STACK_NAME,
    LocalState,
    connect_local,
    home,
    read_local_state,
)

if TYPE_CHECKING:
    from captions_cli.background import LocalSettings

app = typer.Typer()

LatencyScale = Annotated[
    float, typer.Option(min=0.0, help="Factor on the local model endpoint's latencies; 1 is as in reality.")
]


@app.command()
def up(
    ctx: typer.Context,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C ends it.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the AWS endpoint; 0 is any free one.")] = 0,
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    latency_scale: LatencyScale = 0.1,
    parameter: Parameters = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="No stack yet: AWS's APIs alone, for `sam deploy` and `captions deploy`.")
    ] = False,
) -> None:
    """Start the whole stack on this machine; it stays up until `captions down`."""
    from captions_cli import background
    from captions_cli.endpoint_models import trouble_with_given

    given: Globals = ctx.obj
    settings = replace(_settings(given, latency_scale, parameter), port=port, bind=bind, empty=empty)
    try:
        if read_local_state(home()) is None and (trouble := trouble_with_given(os.environ)):
            say(f"warning: {trouble[0]}")
        if foreground:
            code = background.run_in_foreground(home(), settings, lambda state: _print_state(given, state))
            raise typer.Exit(ExitCode.DONE if code == 0 else ExitCode.UNREACHABLE)
        _print_state(given, background.start(home(), settings, progress=say))
    except background.TakenError as taken:
        _print_state(given, _of_somebody_else(ctx, taken.pid, settings))


def _of_somebody_else(ctx: typer.Context, pid: int, settings: "LocalSettings") -> LocalState:
    """Wait for the stack that is up or starting already; it must be as the options that were given here say."""
    from captions_cli import background

    if read_local_state(home()) is None:
        say(f"the local stack is starting already (process {pid}); waiting for it")
    state = background.awaited(home(), pid)
    has = connect_local(state).parameters if state.bucket else {}
    other = [f"{name}={value}" for name, value in settings.parameters.items() if has.get(name) != value]
    is_so = {
        "port": urlsplit(state.aws_endpoint_url).port == settings.port or not settings.port,
        "bind": state.bind in ("", settings.bind),
        "latency_scale": state.latency_scale in (None, settings.latency_scale),
        "empty": settings.empty == (not state.bucket),
    }
    other += [f"--{name.replace('_', '-')}" for name in is_so if not is_so[name] and _given(ctx, name)]
    choice = ctx.obj.choice
    is_in = {"--region": (choice.region, state.region), "--stack-name": (choice.stack_name, state.stack_name)}
    other += [name for name, (wanted, has_it) in is_in.items() if wanted not in (None, has_it)]
    if other:
        raise CommandError(
            f"the local stack is up without {', '.join(other)}: `captions down` ends it and what it holds, "
            "then `captions up` takes other options",
            ExitCode.USAGE,
        )
    say("the local stack is already up; `captions down` ends it")
    return state


def _given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def down() -> None:
    """End the local stack and what it holds."""
    from captions_cli import background

    say("the local stack is down" if background.stop(home()) else "no local stack was up")


@app.command()
def demo(
    ctx: typer.Context,
    latency_scale: LatencyScale = 0.1,
    parameter: Parameters = None,
    keep: Annotated[bool, typer.Option(help="Leave the stack up, and print its console's address.")] = False,
) -> None:
    """Upload real media to a stack of the demo's own on this machine, watch it, and check how each upload ended."""
    from captions_cli import demo as demonstration
    from captions_cli import demo_doors, printing
    from captions_cli.demo_view import LiveAudience, as_json, print_report
    from captions_cli.endpoint_models import URL_VARIABLE, trouble_with_given

    given: Globals = ctx.obj
    settings = _settings(given, latency_scale, parameter)
    if trouble := trouble_with_given(os.environ):
        message, certain = trouble
        if certain:
            raise CommandError(message, ExitCode.UNREACHABLE)
        say(f"warning: {message}")  # it may answer all the same
    real = bool(os.environ.get(URL_VARIABLE))
    own = {**demo_doors.PARAMETERS, **(demonstration.REAL_ENDPOINT if real else demonstration.PRICED_MODELS)}
    settings = replace(settings, parameters={**own, **settings.parameters})
    directory = home() / "demo"
    with LiveAudience() as audience:
        report = demonstration.run(settings, directory, audience, real_endpoint=real, keep=keep)
    if given.json:
        printing.print_json(as_json(report))
    else:
        print_report(report)
    if report.console_url is not None:
        say(f"the stack stays up; its console is {report.console_url}")
        say(f"`CAPTIONS_HOME={directory} captions down` ends it")
    for problem in report.problems:
        say(f"captions: {problem}")
    if report.problems:
        say(f"the stack's logs are in {directory}")
        raise typer.Exit(ExitCode.NOT_CAPTIONED)


@app.command()
def console(
    ctx: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve it at; 0 is any free one.")] = 8765,
) -> None:
    """Print where the console is; where the API takes signed requests (Api=iam), serve it here, signed by you."""
    stack = ctx.obj.stack()
    state = read_local_state(home()) if stack.endpoint_url else None
    if state is not None:
        print(state.console_url)
        return
    match stack.parameters.get("Api", "off"):
        case "cognito":
            print(stack.output("ApiUrl"))
        case "iam":
            from captions_cli import signed_console

            try:
                signed_console.serve(
                    stack.output("ApiUrl"), stack.session.get_credentials(), stack.region, port, _announce
                )
            except OSError as error:
                raise CommandError(f"port {port} is not to be had: {error}", ExitCode.USAGE) from error
        case _:
            raise CommandError(f"{stack.where} has no API: deploy it with Api=cognito or Api=iam", ExitCode.USAGE)


def _announce(address: str) -> None:
    print(address, flush=True)
    say("what you do there is signed with your credentials; Ctrl-C ends it")


def _settings(given: Globals, latency_scale: float, parameters: list[str] | None) -> "LocalSettings":
    from captions_cli.background import LocalSettings

    if given.choice.profile is not None:
        raise CommandError("the local stack knows no AWS profile", ExitCode.USAGE)
    return LocalSettings(
        latency_scale=latency_scale,
        stack_name=given.choice.stack_name or DEFAULT_STACK_NAME,
        region=given.choice.region or DEFAULT_LOCAL_REGION,
        parameters=_with_known_models(pairs(parameters)),
    )


def _with_known_models(parameters: dict[str, str]) -> dict[str, str]:
    """Return a stack's parameters; uploads would wait for models that are in no catalogue (CommandError)."""
    chains = {name: parameters[name] for name in ("ImageModels", "AudioModels") if parameters.get(name)}
    if chains and not parameters.get("ModelsOverride"):
        from captions.gateway.catalogue import load
        from captions_cli import policies

        policies.checked(None, parameters=policies.parameters(chains), catalogue=load(), where=" and ".join(chains))
    return parameters


def _print_state(given: Globals, state: LocalState) -> None:
    from captions_cli import printing

    url = state.aws_endpoint_url
    env = {**proxy_exception(url), **LOCAL_CREDENTIALS, "AWS_DEFAULT_REGION": state.region}
    if given.json:
        printing.print_json({**vars(state), "console_url": state.console_url, "env": env})
        return
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
    if state.bucket:
        lines = [
            f"S3 endpoint      {url}",
            f"bucket           {state.bucket}",
            f"model endpoint   {state.model_endpoint_url}",
            f"console          {state.console_url}",
            "",
            "upload with the AWS CLI:",
            f"  {variables} aws --endpoint-url {url} s3 cp FILE s3://{state.bucket}/",
            "then see its caption:",
            "  captions ls",
        ]
    else:
        lines = [
            f"AWS endpoint     {url}",
            f"model endpoint   {state.model_endpoint_url}",
            "",
            "deploy to it:",
            f"  export {variables} AWS_ENDPOINT_URL={url}",
            f"  captions deploy --parameter EndpointUrls={state.model_endpoint_url}",
        ]
    typer.echo("\n".join(lines))
