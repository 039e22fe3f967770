"""What the `captions` command decides without any AWS: options, keys, what is printed, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ProfileNotFound
from typer.testing import CliRunner

from captions.cost import Cost
from captions.gateway.catalogue import load
from captions.records.record import Provenance, Reason, Record, Result
from captions.records.spending import Spending
from captions_cli import background, listing, printing, rendering, searching, uploading
from captions_cli.catalogue_comparison import CatalogueComparison, PriceChange
from captions_cli.commands import deploy, local, options
from captions_cli.errors import CommandError, ExitCode, explain
from captions_cli.main import app
from captions_cli.printable import printable
from captions_cli.stack import Choice, LocalState, Stack, connect, home, read_local_state
from captions_cli.uploading import plan

STATE = {
    "pid": 4242,
    "aws_endpoint_url": "http://127.0.0.1:1",
    "model_endpoint_url": "http://127.0.0.1:2/v1",
    "stack_name": "media-captions",
    "region": "us-east-1",
    "bucket": "media",
    "started_at": "2026-01-01T00:00:00Z",
}


@pytest.fixture(autouse=True)
def _no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONS_HOME", str(tmp_path / "home"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def keys(paths: list[Path], prefix: str = "") -> list[str]:
    return [file.key for file in plan(paths, prefix)]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_file_becomes_its_name_and_a_directory_keeps_its_own(tmp_path: Path) -> None:
    item = touch(tmp_path / "one.jpg")
    touch(tmp_path / "trip" / "b" / "two.jpg")
    touch(tmp_path / "trip" / "a.jpg")
    touch(tmp_path / "trip" / ".hidden" / "x.jpg")

    assert keys([item, tmp_path / "trip"], "p/") == ["p/one.jpg", "p/trip/a.jpg", "p/trip/b/two.jpg"]


def test_the_working_directory_has_no_name_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "trip" / "a.jpg")
    monkeypatch.chdir(tmp_path / "trip")

    assert keys([Path()]) == ["a.jpg"]
    assert keys([Path("..")]) == ["trip/a.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="a backslash parts directories there")
def test_odd_names_are_kept_as_they_are(tmp_path: Path) -> None:
    names = ["C:\\photos\\a.jpg", "snap shot (1) é ü #2.JPG", "100%+plus.jpg", "line\nbreak.jpg", "-dash.jpg"]

    assert keys([touch(tmp_path / name) for name in names]) == names


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    path = touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")))

    with pytest.raises(CommandError, match=r"caf\\udce9.jpg is not Unicode") as refused:
        plan([path])
    assert refused.value.exit_code == ExitCode.USAGE


def test_two_files_of_one_key_and_a_key_too_long_are_refused(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "a" / "x.jpg"), touch(tmp_path / "b" / "x.jpg")

    with pytest.raises(CommandError, match=r"would both become x\.jpg"):
        plan([first, second])
    with pytest.raises(CommandError, match="1030 bytes; S3 takes 1024"):
        plan([first], "é" * 510 + "12345")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_what_is_no_file_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")

    for path in (tmp_path / "pipe.jpg", Path(os.devnull)):
        with pytest.raises(CommandError, match="neither a file nor a folder"):
            plan([path])
    touch(tmp_path / "x.jpg")
    assert keys([tmp_path]) == [f"{tmp_path.name}/x.jpg"]


@pytest.mark.parametrize("parameter", ["ImageModels=GPT-4o,GPT-99", "AudioModels=GPT-99"])
def test_a_stack_is_not_started_with_a_model_that_nobody_knows(parameter: str) -> None:
    for command in ("up", "demo"):
        ran = CliRunner().invoke(app, [command, "--parameter", parameter])
        assert ran.exit_code == ExitCode.USAGE
        assert "the catalogue has no model 'GPT-99'" in ran.stderr
    assert local._with_known_models(added := {"ImageModels": "GPT-99", "ModelsOverride": "s3://a/b.toml"}) is added


def test_without_a_region_a_deployed_stack_is_not_looked_for_among_local_ones(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^no region is set to look for a deployed stack: give --region$"):
        connect(Choice(stack_name="other"), tmp_path)
    with pytest.raises(CommandError, match=r"^no local stack is up here"):
        connect(Choice(), tmp_path)


def test_the_same_file_twice_is_refused_too(tmp_path: Path) -> None:
    path = touch(tmp_path / "x.jpg")

    with pytest.raises(CommandError, match="would both become"):
        plan([path, Path(str(path))])


@pytest.mark.parametrize(
    "words",
    [
        ["upload", "no-such-file.jpg"], ["upload"], ["ls", "--limit", "0"], ["nonsense"], ["edit", "a.jpg", " "],
        *([name, "--days", "99999999"] for name in ("ls", "costs", "quality", "redrive")),
        *([name, "--limit", "9" * 20] for name in ("ls", "quality", "reconcile")),
        ["costs", "--at-most", "9" * 20], ["reconcile", "--older-than", "1e300"],
        *(["export", "there", "--since", day] for day in ("0001-01-03", "9999-12-31")),
        *(["export", "there", "--until", day] for day in ("0001-01-03", "9999-12-31")),
        ["search", "cat", "--until", "9999-12-31"], ["search", "--index-since", "0001-01-01"],
        ["webhooks", "replay", "shop", "--since", "0001-01-01"],
    ],
)  # fmt: skip
def test_what_cannot_be_used_exits_2_without_a_traceback(words: list[str]) -> None:
    ran = CliRunner().invoke(app, words)

    assert ran.exit_code == 2
    assert "Traceback" not in ran.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_an_output_that_is_full_is_told_in_one_line(tmp_path: Path) -> None:
    override = tmp_path / "override.toml"
    override.write_text("")
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "captions_cli.main", "policy", "check", str(override), "-o", "json"],
            env={**os.environ, "CAPTIONS_HOME": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (2, "captions: the output cannot be written: No space left on device\n")


def test_a_file_named_like_an_option_is_told_how_to_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "-dash.jpg")
    monkeypatch.chdir(tmp_path)

    ran = CliRunner().invoke(app, ["upload", "-dash.jpg"])

    assert ran.exit_code == 2
    assert "given as ./-dash.jpg" in " ".join(ran.stderr.split())


def test_an_interrupted_upload_tells_what_becomes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    home().mkdir()
    (home() / "stack.json").write_text(json.dumps(STATE))
    monkeypatch.setattr(uploading, "send", interrupted)

    ran = CliRunner().invoke(app, ["upload", str(touch(tmp_path / "a.jpg"))])

    assert ran.exit_code == 130
    assert "captions: interrupted; uploads that arrived go on" in ran.stderr


def test_a_command_that_is_terminated_ends_in_order_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before, ended = signal.getsignal(signal.SIGTERM), list[str]()

    def stopped(directory: Path) -> bool:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            ended.append("what it had started")
        return True

    monkeypatch.setattr(background, "stop", stopped)
    ran = CliRunner().invoke(app, ["down"])

    assert ran.exit_code == 143
    assert "captions: terminated" in ran.stderr
    assert ended
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("given", "why"),
    [("NoSuch=1", "no parameter NoSuch"), ("Bulk=maybe", "is not one of"), ("MaxJobAgeSeconds=soon", "is no number")],
)
def test_a_parameter_that_the_template_does_not_take_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, given: str, why: str
) -> None:
    monkeypatch.setattr(background, "command", lambda *_: pytest.fail("started"))
    ran = CliRunner().invoke(app, ["up", "--parameter", given])

    assert ran.exit_code == 2
    assert why in " ".join(ran.stderr.split())


@pytest.mark.parametrize(
    ("up", "endpoint", "said_so"), [(True, "", True), (True, "http://x", False), (False, "", False)]
)
def test_deploy_says_that_it_goes_to_aws_though_a_stack_is_up_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], up: bool, endpoint: str, said_so: bool
) -> None:
    monkeypatch.setattr(deploy, "read_local_state", lambda _: object() if up else None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    deploy._say_where()
    assert ("deploys to AWS" in capsys.readouterr().err) is said_so


def test_an_empty_key_and_a_search_that_is_off_are_told_as_such() -> None:
    stack = cast(Stack, SimpleNamespace(where="it", bucket="b", parameters={}, nested_outputs=lambda _: {}))

    with pytest.raises(CommandError, match="the key is empty") as empty:
        listing.get(stack, "s3://b/")
    with pytest.raises(CommandError, match="it has no search: its parameter Search is off") as off:
        searching.search(stack, "dog", {})

    assert (empty.value.exit_code, off.value.exit_code) == (ExitCode.USAGE, ExitCode.NOT_CAPTIONED)


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize(
    ("cursor", "further", "code"), [(None, None, 1), (None, "next", 0), ("next", None, 0), ("next", "next", 0)]
)
def test_a_search_without_results_is_one_whose_only_page_is_empty(
    monkeypatch: pytest.MonkeyPatch, output: str, cursor: str | None, further: str | None, code: int
) -> None:
    monkeypatch.setattr(options.Globals, "stack", lambda self: None)
    monkeypatch.setattr(searching, "search", lambda *_: {"items": [], "cursor": further, "relaxed": False})
    ran = CliRunner().invoke(app, ["search", "dog", "--output", output, *(["--cursor", cursor] if cursor else [])])

    assert (ran.exit_code, "no caption" in ran.stderr) == (code, code == 1)
    assert output == "json" or further is None or f"--cursor {further}" in ran.stderr


def test_an_empty_directory_is_nothing_to_upload(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["upload", str(tmp_path)])

    assert (ran.exit_code, ran.stderr) == (2, "captions: there is no file to upload\n")


def test_without_a_stack_or_a_region_the_user_is_told_what_to_do() -> None:
    ran = CliRunner().invoke(app, ["ls"])

    assert ran.exit_code == 3
    assert "run `captions up`, or give --region" in ran.stderr


def test_a_profile_that_does_not_exist_is_told_in_one_line() -> None:
    ran = CliRunner().invoke(app, ["ls", "--profile", "nobody", "--region", "eu-west-1"])

    assert ran.exit_code == 5
    assert ran.stderr == "captions: The config profile (nobody) could not be found\n"


def test_global_options_are_taken_on_either_side_of_the_command_up_to_two_dashes(tmp_path: Path) -> None:
    for words in (["-o", "json", "get", "x", "--region=eu-west-1"], ["get", "x", "--region", "eu-west-1", "-ojson"]):
        assert CliRunner().invoke(app, [*words, "--profile", "nobody"]).exit_code == 5
    after = CliRunner().invoke(app, ["upload", "--", "--output"])

    assert after.exit_code == 2
    assert "captions: --output does not exist" in after.stderr


def test_the_state_of_the_local_stack_is_taken_unless_a_stack_is_named(tmp_path: Path) -> None:
    directory = home()
    directory.mkdir()
    (directory / "stack.json").write_text(json.dumps(STATE))

    assert connect(Choice(), directory).endpoint_url == "http://127.0.0.1:1"
    assert connect(Choice(region="eu-west-1"), directory).endpoint_url is None
    assert connect(Choice(stack_name="other", region="eu-west-1"), directory).name == "other"


def test_a_broken_state_file_is_told_and_down_removes_it(tmp_path: Path) -> None:
    directory = home()
    directory.mkdir()
    (directory / "stack.json").write_text("{")

    ran = CliRunner().invoke(app, ["ls"])

    assert ran.exit_code == 3
    assert "`captions down` removes it" in ran.stderr
    assert CliRunner().invoke(app, ["down"]).exit_code == 0
    assert read_local_state(directory) is None


def test_down_leaves_alone_a_process_that_merely_got_the_number() -> None:
    directory = home()
    directory.mkdir()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        (directory / "stack.json").write_text(json.dumps({**STATE, "pid": stranger.pid}))

        ran = CliRunner().invoke(app, ["down"])

        assert ran.stderr == "no local stack was up\n"
        assert stranger.poll() is None
        stranger.kill()


def test_a_stack_that_does_not_start_shows_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "print('line one'); raise SystemExit('the template is wrong')"
    monkeypatch.setattr(background, "command", lambda *_: [sys.executable, "-c", script])

    ran = CliRunner().invoke(app, ["up"])

    assert ran.exit_code == 3
    assert "ended with exit code 1 while starting" in ran.stderr
    assert ran.stderr.endswith("line one\nthe template is wrong\n")


def test_one_start_owns_a_directory_until_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import time; print('the first', flush=True); time.sleep(60)"
    monkeypatch.setattr(background, "command", lambda *_: [sys.executable, "-c", script, background.MODULE])
    with ThreadPoolExecutor() as pool:
        first = pool.submit(background.start, home(), background.LocalSettings())
        while background.tail(home() / "stack.log") != "the first":
            assert not first.done()
        with pytest.raises(background.TakenError) as taken:
            background.start(home(), background.LocalSettings())
        second = pool.submit(background.awaited, home(), taken.value.pid)
        assert background.tail(home() / "stack.log") == "the first"

        # A process of its own: here it would take the exit code away from the thread that started the stack.
        down = [sys.executable, "-m", "captions_cli.main", "down"]
        ran = subprocess.run(down, capture_output=True, text=True, check=False)

        assert (ran.returncode, ran.stderr) == (0, "the local stack is down\n")
        with pytest.raises(CommandError, match="was ended while it was starting"):
            first.result(timeout=30)
        with pytest.raises(CommandError, match=rf"process {taken.value.pid}\) has ended"):
            second.result(timeout=30)


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ("up --parameter Search=words", 0, "already up"),
        ("up --parameter Search=meaning", 2, "up without Search=meaning"),
        ("up --parameter None=1", 2, "None=1"),
        ("up --port 1 --bind 127.0.0.1 --latency-scale 0.5", 0, "already up"),
        ("up --port 2 --bind 0.0.0.0 --latency-scale 1", 2, "without --port, --bind, --latency-scale:"),
        ("up --empty", 2, "without --empty"),
        ("--region eu-central-1 --stack-name media-captions up", 2, "without --region:"),
    ],
)
def test_a_stack_that_is_up_takes_no_other_options(
    given: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: object, **__: object) -> None:
        raise background.TakenError(home(), 4242)

    monkeypatch.setattr(background, "start", taken)
    running = LocalState(**STATE, bind="127.0.0.1", latency_scale=0.5)  # type: ignore[arg-type]
    monkeypatch.setattr(background, "awaited", lambda *_: running)
    monkeypatch.setattr(local, "connect_local", lambda _: SimpleNamespace(parameters={"Search": "words"}))

    ran = CliRunner().invoke(app, given.split())

    assert ran.exit_code == code
    assert words in ran.stderr
    assert "`captions down`" in ran.stderr
    assert bool(ran.stdout) == (code == 0)


def test_the_demo_asks_a_given_endpoint_before_it_starts_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTIONS_ENDPOINT_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setattr(background, "command", lambda *_: [sys.executable, "-c", "raise SystemExit('too late')"])
    trouble = (
        "CAPTIONS_ENDPOINT_URL: http://127.0.0.1:1/v1 cannot be reached from here: [Errno 111] Connection refused\n"
    )

    ran = CliRunner().invoke(app, ["demo"])
    started = home().exists()
    warned = CliRunner().invoke(app, ["up"])

    assert (ran.exit_code, ran.stderr) == (3, f"captions: {trouble}")
    assert not started
    assert warned.stderr.startswith(f"warning: {trouble}starting the local stack\n")


@pytest.mark.parametrize("words", ["up", "down", "demo", "ls"])
def test_a_home_that_cannot_be_used_is_told_in_one_line(words: str) -> None:
    home().write_text("a file")

    ran = CliRunner().invoke(app, [words])

    assert ran.exit_code == 2
    assert ran.stderr.count("\n") == 1
    assert str(home()) in ran.stderr
    assert ran.stderr.endswith("give another CAPTIONS_HOME\n")


def test_parameters_of_up_need_a_name_and_a_value() -> None:
    assert CliRunner().invoke(app, ["up", "--parameter", "Language"]).exit_code == 2
    assert CliRunner().invoke(app, ["up", "--profile", "mine"]).exit_code == 2


def test_errors_of_aws_become_one_line_and_their_exit_code() -> None:
    denied = ClientError(
        {"Error": {"Code": "AccessDenied", "Message": "not\nallowed"}, "ResponseMetadata": {}},  # type: ignore[typeddict-item]
        "PutObject",
    )

    assert [(reported.message, reported.exit_code) for error in (denied,) if (reported := explain(error))] == [
        ("AWS refused PutObject: AccessDenied: not allowed", ExitCode.AWS)
    ]
    unreachable = explain(EndpointConnectionError(endpoint_url="https://x"))
    assert unreachable is not None
    assert unreachable.exit_code == ExitCode.UNREACHABLE
    for other in (NoCredentialsError(), ProfileNotFound(profile="x")):
        reported = explain(other)
        assert reported is not None
        assert reported.exit_code == ExitCode.AWS
    assert explain(ValueError("ours")) is None


def test_what_is_printed_holds_no_control_characters() -> None:
    assert printable("a\x1b[2Jb\r\n\u202ec é 猫") == "a\\x1b[2Jb\\r\\n\\u202ec é 猫"
    assert printable(os.fsdecode(b"\xff")) == "\\udcff"


@pytest.mark.parametrize(
    ("dollars", "shown"),
    [
        ("0", "$0"),
        ("0.00042", "$0.000420"),
        ("12.5", "$12.50"),
        (Decimal("0.1"), "$0.100000"),
        (None, ""),
        ("0.0000004", "$0.0000004"),
        ("0.0000016", "$0.000002"),
        ("1.005", "$1.00"),
        ("1.015", "$1.02"),
    ],
)
def test_money_is_shown_to_the_millionth_below_a_dollar(dollars: str | None, shown: str) -> None:
    assert rendering.money(dollars) == shown
    assert rendering.money(None, unknown=True) == "unknown"


@pytest.mark.parametrize(
    ("dollars", "bound"), [("1.019", "1.01"), ("0.0000019", "0.000001"), ("0.00000019", "0.0000001")]
)
def test_what_was_spent_at_least_is_never_rounded_up(dollars: str, bound: str) -> None:
    assert rendering.cost(Cost(dollars=Decimal(dollars), unpriced_tokens=7)).partition("$")[2] == f"{bound} + 7 tokens"


def record(**values: object) -> Record:
    return Record.model_validate({"asset": "b/k", "bucket": "b", "key": "k", "sequencer": "0" * 64, **values})


def test_the_summary_of_a_record_is_flat_and_always_has_every_field() -> None:
    captioned = record(
        state="captioned",
        source="cache",
        result=Result(text="a dog", language="en", task="caption"),
        provenance=Provenance(model="GPT-4o", cost="0", saved="0.01", copied_from="b/first"),
        received_at="2026-01-01T00:00:00.000000Z",
        completed_at="2026-01-01T00:00:02.250000Z",
    )
    rejected = record(state="rejected", reason=Reason(code="empty", message="the file is empty"))

    assert rendering.summary(captioned)["seconds"] == 2.25
    assert rendering.summary(captioned)["saved"] == "0.01"
    assert rendering.summary(rejected)["reason"] == {"code": "empty", "message": "the file is empty"}
    for facts in (rendering.summary(captioned), rendering.summary(rejected)):
        assert tuple(facts) == rendering.SUMMARY_FIELDS
        json.dumps(facts)


def test_a_long_key_moves_its_own_row_alone(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("k" * 900, "b.jpg", "long-name.jpg")
    printing.print_table(rendering.records(record(state="queued", key=key) for key in keys))

    header, long, *short = capsys.readouterr().out.splitlines()
    assert long.startswith("k" * 900 + "  queued")
    assert {line.index("queued") for line in short} == {header.index("State")} == {len("long-name.jpg  ")}


def test_a_record_is_shown_with_its_own_key_and_without_what_only_programs_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = record(
        state="queued",
        key="new\nline.jpg",
        paid_ids=("x",),
        superseded_calls=2,
        superseded_cost=Decimal("0.5"),
        undone=("2026-12-01T00:00:00Z", "2026-12-01T00:00:01Z"),
    )

    printing.print_table(rendering.details(shown))

    fields = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "  " in line)
    assert fields["key"] == "new\\nline.jpg"
    assert fields["replaced_versions"] == "$0.500000 in 2 calls"
    assert not {"sweeps", "begun", "paid_ids[0]", "superseded_calls", "undone[0]"} & fields.keys()


@pytest.mark.parametrize(
    ("models", "note"),
    [(["gpt-4o"], ""), (["local/pixels", None], " simulated"), (["local/pixels", "gpt-4o"], " partly simulated")],
)
def test_sums_of_the_local_models_are_called_simulated(models: list[str | None], note: str) -> None:
    answers = rendering.AnswerCount()
    for model in models:
        answers.noted(record(state="captioned", provenance=Provenance(model="GPT-4o", reported_model=model)))

    names = [column.header for column in rendering.spendings("day", [], Spending(), answers.note).columns]

    assert names[3] == f"Cost,{note}".removesuffix(",")


def test_the_models_table_tells_what_the_endpoint_lacks_and_prices_otherwise() -> None:
    catalogue = load()
    first, second, *_ = (name for name, model in catalogue.models.items() if model.enabled)
    change = PriceChange(model=first, what="input", catalogue=None, endpoint=Decimal("0.5"))
    compared = CatalogueComparison(
        present=(first,), missing=(second,), new=("theirs",), price_changes=(change,), contexts={first: 4096}
    )

    offer = rendering.offer("http://x/v1", catalogue, compared)

    by_name = {model["name"]: model for model in offer["models"]}
    assert (by_name[first]["offered"], by_name[first]["endpoint_context"]) == (True, 4096)
    assert by_name[second]["offered"] is False
    assert offer["price_changes"] == [{"model": first, "what": "input", "catalogue": None, "endpoint": "0.5"}]
    assert rendering.models(catalogue, compared).row_count == len(offer["models"])


def test_help_names_the_exit_codes() -> None:
    ran = CliRunner().invoke(app, ["--help"])

    assert ran.exit_code == 0
    assert "Exit codes: 0 done" in ran.stdout


def test_help_does_not_load_what_only_the_work_needs() -> None:
    heavy = "sorted({'boto3', 'botocore', 'PIL', 'numpy', 'pydantic', 'moto', 'openai', 'ssl'} & set(sys.modules))"
    reported = subprocess.run(
        [sys.executable, "-c", f"import sys, captions_cli.main; print({heavy})"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert reported.stdout == "[]\n"
