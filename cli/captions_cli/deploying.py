"""Deploys to regions in waves with SAM CLI: the canary first, checked by its alarms and an upload, then the others."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from captions_cli import alarms, bulk_lane, drift, stack_recovery, synthetic
from captions_cli.errors import CommandError, ExitCode, explain
from captions_cli.stack import Choice, Stack, connect_aws

STATE_FILE = "deployment.json"
SETTLED = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})
ALARM_POLL_SECONDS = 5.0
TAIL_LINES = 25
LONGEST_STACK_NAME = 53
"""Functions are called by the stack's name and up to eleven characters, and may have 64 (Lambda API, FunctionName)."""
_STACK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_NO_CHANGE_SET = "No changes to deploy"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """One environment of samconfig.toml: where it deploys to, and with which parameters of its own."""

    name: str
    region: str
    stack_name: str
    overrides: tuple[str, ...] = ()
    """As `sam deploy --parameter-overrides` takes them."""


def environments(path: Path) -> list[Environment]:
    """Read the environments of a samconfig.toml that name a region, in their order.

    Raises CommandError (usage) when the file is missing or is none.
    """
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", ExitCode.USAGE) from error
    except ValueError as error:
        raise CommandError(f"{path} is not TOML: {error}", ExitCode.USAGE) from error
    listed = []
    for name, commands in config.items():
        if not isinstance(commands, dict) or name == "default":
            continue
        given = {**_parameters(commands, "global"), **_parameters(commands, "deploy")}
        if "region" in given and "stack_name" in given:
            _check_name(name, str(given["stack_name"]))
            overrides = _overrides(given.get("parameter_overrides", ()))
            listed.append(Environment(name, str(given["region"]), str(given["stack_name"]), overrides))
    if not listed:
        raise CommandError(f"{path} has no environment with a region and a stack_name", ExitCode.USAGE)
    return listed


def _check_name(environment: str, stack_name: str) -> None:
    if len(stack_name) > LONGEST_STACK_NAME:
        raise CommandError(
            f"{environment}: the stack name {stack_name} has {len(stack_name)} characters; as its functions are called "
            f"by it, it may have {LONGEST_STACK_NAME}",
            ExitCode.USAGE,
        )
    if not _STACK_NAME.fullmatch(stack_name):
        raise CommandError(
            f"{environment}: {stack_name!r} is no stack name: a letter, then letters, digits and hyphens",
            ExitCode.USAGE,
        )


def _parameters(commands: Mapping[str, Any], command: str) -> dict[str, Any]:
    parameters = commands.get(command, {}).get("parameters", {})
    return dict(parameters) if isinstance(parameters, dict) else {}


def _overrides(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(shlex.split(given))
    if isinstance(given, dict):
        return tuple(f"{name}={value}" for name, value in given.items())
    return tuple(str(item) for item in given)


@dataclass(frozen=True)
class DeploymentPlan:
    """What is deployed where: `waves` one after the other, those of a wave side by side."""

    root: Path
    template: Path
    sam: str
    waves: tuple[tuple[Environment, ...], ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None

    @property
    def all(self) -> list[Environment]:
        """Every environment, in order."""
        return [environment for wave in self.waves for environment in wave]

    def digests(self) -> dict[str, str]:
        """Tell, for each environment, this build with its parameters from any other: only the same is continued."""
        content = hashlib.sha256()
        for path in sorted(self.template.parent.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content.update(f"{path.relative_to(self.template.parent)}\0".encode())
                content.update(hashlib.sha256(path.read_bytes()).digest())
        content.update(json.dumps(sorted(self.parameters.items())).encode())
        digests = {}
        for environment in self.all:
            own = content.copy()
            own.update(json.dumps(asdict(environment)).encode())
            digests[environment.name] = own.hexdigest()
        return digests


def waves(chosen: Sequence[Environment], *, one_by_one: bool) -> tuple[tuple[Environment, ...], ...]:
    """The first one alone, then the others: side by side, or each in its turn."""
    first, others = chosen[:1], chosen[1:]
    if one_by_one:
        return tuple((environment,) for environment in chosen)
    return tuple(tuple(wave) for wave in (first, others) if wave)


def find_sam(root: Path) -> str:
    """SAM CLI: the project's own, else the one on the path.

    Raises CommandError when there is none.
    """
    own = root / ".venv" / "sam" / "bin" / "sam"
    sam = str(own) if own.is_file() else shutil.which("sam")
    if sam is None:
        raise CommandError("SAM CLI is not here; `make build` installs it into .venv/sam", ExitCode.USAGE)
    return sam


EnvState = Literal["pending", "deploying", "deployed", "verified", "failed"]


@dataclass(frozen=True)
class Standing:
    """How far one environment has come."""

    environment: str
    status: EnvState = "pending"
    reason: str = ""
    at: str = ""
    changed: bool | None = None
    """Whether the deployment had anything to change; None before it."""
    digest: str = ""
    """Of the build and the parameters that this is about."""


class Ledger:
    """Remembers in a file how far each environment has come, so that a second run goes on where the first stopped."""

    def __init__(self, path: Path, plan: DeploymentPlan) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._digests = plan.digests()
        self._before = self._read()
        self.standing = {name: Standing(name, digest=digest) for name, digest in self._digests.items()}
        known = {
            name: self._before[name]
            for name, digest in self._digests.items()
            if name in self._before and self._before[name].digest == digest
        }
        # When all is done, another run is asked for on purpose: it deploys, and checks, everything again.
        if any(standing.status != "verified" for standing in (self.standing | known).values()):
            self.standing |= known

    def _read(self) -> dict[str, Standing]:
        try:
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            return {name: Standing(**standing) for name, standing in saved["environments"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # none, or one of another version: everything is deployed, which changes nothing that is so

    def note(self, environment: str, status: EnvState, reason: str = "", *, changed: bool | None = None) -> None:
        """Write down how far an environment has come."""
        with self._guard:
            before = self.standing[environment]
            at = datetime.now(UTC).isoformat(timespec="seconds")
            changed = before.changed if changed is None else changed
            self.standing[environment] = replace(before, status=status, reason=reason, at=at, changed=changed)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # What a run is not about stays as the last run about it left it.
            written = {name: asdict(standing) for name, standing in (self._before | self.standing).items()}
            with tempfile.NamedTemporaryFile(
                "w", dir=self._path.parent, suffix=".tmp", delete=False, encoding="utf-8"
            ) as draft:
                draft.write(json.dumps({"environments": written}, indent=2) + "\n")
            Path(draft.name).replace(self._path)


@dataclass(frozen=True)
class Checks:
    """How a deployed region is judged.

    `bake_seconds`: how long its alarms are watched; `upload_seconds`: how long the synthetic upload may take, 0: none.
    """

    bake_seconds: float = 60.0
    upload_seconds: float = 300.0


class Deployer:
    """Carries a plan out, wave by wave."""

    def __init__(self, plan: DeploymentPlan, ledger: Ledger, checks: Checks, logs: Path, say: Say) -> None:
        self._plan = plan
        self._ledger = ledger
        self._checks = checks
        self._logs = logs
        self._say = say

    def run(self) -> bool:
        """Deploy and check every environment that is not verified yet; False as soon as a wave has one that failed."""
        for wave in self._plan.waves:
            left = [environment for environment in wave if self._ledger.standing[environment.name].status != "verified"]
            for environment in wave:
                if environment not in left:
                    self._say(f"{environment.name}: deployed and verified by an earlier run")
            if not left:
                continue
            with ThreadPoolExecutor(len(left)) as pool:
                if not all(list(pool.map(self._bring_up, left))):
                    return False
        return True

    def _bring_up(self, environment: Environment) -> bool:
        name = environment.name
        try:
            if self._ledger.standing[name].status != "deployed":
                stack_recovery.prepare(self.stack(environment), self._say)
                self._check_batches(environment)
                self._show_drift(environment)
                self._ledger.note(name, "deploying")
                self._say(f"{name}: deploying {environment.stack_name} to {environment.region}")
                changed = self._deploy(environment)
                self._ledger.note(name, "deployed", changed=changed)
                self._say(f"{name}: deployed" if changed else f"{name}: nothing to change")
            self._verify(environment)
        except Exception as error:
            explained = error if isinstance(error, CommandError) else explain(error)
            if explained is None:
                raise
            # Deployed but not as it must be: a second run checks again before it deploys again.
            deployed = self._ledger.standing[name].status == "deployed"
            self._ledger.note(name, "deployed" if deployed else "failed", explained.message)
            self._say(f"{name}: {'deployed, but ' if deployed else ''}{explained.message}")
            return False
        self._ledger.note(name, "verified")
        self._say(f"{name}: verified")
        return True

    def stack(self, environment: Environment) -> Stack:
        """The environment's stack."""
        return connect_aws(Choice(environment.stack_name, environment.region, self._plan.profile))

    def _given(self, environment: Environment) -> list[str]:
        return [*environment.overrides, *(f"{name}={value}" for name, value in self._plan.parameters.items())]

    def _check_batches(self, environment: Environment) -> None:
        stack = self.stack(environment)
        given = dict(pair.partition("=")[::2] for pair in self._given(environment))
        if given.get("Bulk") == "off" and stack.exists:
            bulk_lane.require_drained(stack)

    def _sam(self, environment: Environment, *more: str) -> "subprocess.CompletedProcess[str]":
        given = self._given(environment)
        arguments = [
            *(self._plan.sam, "deploy", "--config-file", str(self._plan.root / "samconfig.toml")),
            *("--config-env", environment.name, "--template-file", str(self._plan.template)),
            *("--no-confirm-changeset", "--no-fail-on-empty-changeset"),
            *more,
        ]
        if given:
            arguments += ["--parameter-overrides", *given]
        if self._plan.profile is not None:
            arguments += ["--profile", self._plan.profile]
        done = subprocess.run(  # noqa: S603 - SAM CLI, found by us
            arguments,
            cwd=self._plan.root,
            env={**os.environ, "SAM_CLI_TELEMETRY": "0", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{environment.name}.log"
        log.write_text(done.stdout, encoding="utf-8")
        if done.returncode != 0:
            end = "\n".join(done.stdout.strip().splitlines()[-TAIL_LINES:])
            raise CommandError(f"sam deploy ended with {done.returncode}; {log} has all it said:\n{end}", ExitCode.AWS)
        return done

    def _deploy(self, environment: Environment) -> bool:
        return _NO_CHANGE_SET not in self._sam(environment).stdout

    def _show_drift(self, environment: Environment) -> None:
        drifted = drift.detect(self.stack(environment))
        if drifted.known is False:
            return
        for resource in drifted.resources:
            self._say(f"{environment.name}: drifted: {resource.logical_id} ({resource.status}): {resource.difference}")

    # Checking what was deployed

    def _verify(self, environment: Environment) -> None:
        stack = self.stack(environment)
        status = stack.status
        if status not in SETTLED:
            raise CommandError(f"the stack is {status}", ExitCode.AWS)
        if self._checks.upload_seconds:
            self._say(f"{environment.name}: uploading a picture that no other one is like")
            synthetic.check(stack, self._checks.upload_seconds)
        self._watch_alarms(environment, stack)

    def _watch_alarms(self, environment: Environment, stack: Stack) -> None:
        deadline = time.monotonic() + self._checks.bake_seconds
        names = alarms.names(stack)
        self._say(f"{environment.name}: watching {len(names)} alarms for {self._checks.bake_seconds:g} s")
        while True:
            ringing = alarms.ringing(stack, names)
            if ringing:
                raise CommandError(f"in ALARM: {', '.join(ringing)}", ExitCode.AWS)
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(ALARM_POLL_SECONDS, left))

    # Looking ahead

    def preview(self, environment: Environment) -> list[dict[str, Any]]:
        """What a deployment would do to the environment's stack, by a change set that is not executed and removed."""
        stack = self.stack(environment)
        stack_recovery.prepare(stack, self._say, dry_run=True)
        self._check_batches(environment)
        existed = stack.exists
        before = set(_change_sets(stack)) if existed else set()
        try:
            printed = self._sam(environment, "--no-execute-changeset").stdout
            if _NO_CHANGE_SET in printed:
                return []
            made = [name for name in _change_sets(stack) if name not in before]
            if not made:
                raise CommandError("sam deploy made no change set; its log tells why", ExitCode.AWS)
            return _changes(stack, made[-1])
        finally:
            self._forget(stack, before, existed)

    def _forget(self, stack: Stack, before: set[str], existed: bool) -> None:
        cloudformation = stack.client("cloudformation")
        if not existed:
            if stack.exists:  # made by the change set alone, with nothing in it
                cloudformation.delete_stack(StackName=stack.name)
            return
        for name in set(_change_sets(stack)) - before:
            cloudformation.delete_change_set(StackName=stack.name, ChangeSetName=name)


def _change_sets(stack: Stack) -> list[str]:
    """Names of the stack's change sets, oldest first."""
    stacks = []
    pages = stack.client("cloudformation").get_paginator("list_change_sets").paginate(StackName=stack.name)
    for page in pages:
        stacks += page.get("Summaries", [])
    return [summary["ChangeSetName"] for summary in sorted(stacks, key=lambda made: made["CreationTime"])]


def _changes(stack: Stack, change_set: str) -> list[dict[str, Any]]:
    pages = (
        stack.client("cloudformation")
        .get_paginator("describe_change_set")
        .paginate(StackName=stack.name, ChangeSetName=change_set)
    )
    regions = []
    for page in pages:
        for change in page.get("Changes", []):
            resource = change["ResourceChange"]
            regions.append(
                {
                    "action": resource["Action"],
                    "resource": resource["LogicalResourceId"],
                    "type": resource["ResourceType"],
                    "replacement": resource.get("Replacement", "False"),
                    "properties": sorted(
                        {d["Target"].get("Name") or d["Target"]["Attribute"] for d in resource.get("Details", [])}
                    ),
                }
            )
    return regions


def choose(listed: Sequence[Environment], names: Sequence[str], canary: str | None) -> list[Environment]:
    """The environments to deploy, the canary first.

    Raises CommandError (usage) for a name that samconfig.toml does not have.
    """
    by_name = {environment.name: environment for environment in listed}
    for name in [*names, *([canary] if canary else [])]:
        if name not in by_name:
            raise CommandError(f"samconfig.toml has no environment {name}; it has {', '.join(by_name)}", ExitCode.USAGE)
    chosen = [by_name[name] for name in names] if names else list(listed)
    if canary is not None:
        chosen = [by_name[canary], *(environment for environment in chosen if environment.name != canary)]
    return list(dict.fromkeys(chosen))
