"""Finds the stack a command is about: the local one of `captions up`, or one deployed to AWS."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from captions.aws.clients import s3_addressing
from captions_cli import loopback
from captions_cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    import boto3

    from captions.records.listing import Listing
    from captions.records.table import Records

DEFAULT_STACK_NAME = "media-captions"
DEFAULT_LOCAL_REGION = "us-east-1"
STATE_FILE = "stack.json"
CONNECTIONS = 32


def home() -> Path:
    """Where the local stack keeps its state: CAPTIONS_HOME, else `.captions` in the working directory."""
    return Path(os.environ.get("CAPTIONS_HOME") or ".captions")


@dataclass(frozen=True)
class LocalState:
    """What a running local stack tells about itself in its state file."""

    pid: int
    aws_endpoint_url: str
    model_endpoint_url: str
    stack_name: str
    region: str
    bucket: str
    started_at: str
    api_url: str = ""
    """Where the API and its console are; empty where there is no stack yet."""
    api_token: str = ""
    bind: str = ""
    latency_scale: float | None = None

    @property
    def console_url(self) -> str:
        """The address that lets a browser in; empty where there is none."""
        return f"{self.api_url}/?token={self.api_token}" if self.api_url else ""


def read_local_state(directory: Path) -> LocalState | None:
    """Read the state file in a directory; None when there is none.

    Raises CommandError when it is not one.
    """
    path = directory / STATE_FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return LocalState(**{name: saved[name] for name in LocalState.__dataclass_fields__ if name in saved})
    except FileNotFoundError:
        return None
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror}): give another CAPTIONS_HOME"
        raise CommandError(why, ExitCode.USAGE) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"{path} cannot be read as the local stack's state ({type(error).__name__}: {error}); "
            "`captions down` removes it",
            ExitCode.UNREACHABLE,
        ) from error


@dataclass(frozen=True)
class Choice:
    """Which stack the command line names; None: not said."""

    stack_name: str | None = None
    region: str | None = None
    profile: str | None = None

    @property
    def names_a_deployed_stack(self) -> bool:
        """Whether anything was said; then the local stack is left aside."""
        return any(value is not None for value in (self.stack_name, self.region, self.profile))


class Stack:
    """One stack: its AWS clients and what its template put out.

    `endpoint_url` is the AWS stand-in's for a local stack and None for AWS itself; everything else is the same.
    """

    def __init__(
        self,
        session: "boto3.Session",
        name: str,
        *,
        endpoint_url: str | None = None,
        model_endpoint_url: str | None = None,
    ) -> None:
        self.session = session
        self.name = name
        self.endpoint_url = endpoint_url
        self.local_model_endpoint_url = model_endpoint_url
        self._clients: dict[str, Any] = {}
        self._making = RLock()

    @property
    def region(self) -> str:
        """The AWS region."""
        return str(self.session.region_name)

    @property
    def where(self) -> str:
        """The stack in words, for messages."""
        return f"local stack at {self.endpoint_url}" if self.endpoint_url else f"stack {self.name} in {self.region}"

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service, safe to share between threads; making one is not (boto3's guide)."""
        with self._making:
            if service not in self._clients:
                self._clients[service] = self._made(service)
            return self._clients[service]

    def _made(self, service: str) -> Any:
        from botocore.config import Config

        build: Any = self.session.client  # its overloads want each service's name as a literal
        return build(
            service,
            endpoint_url=self.endpoint_url,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": 5},
                s3=s3_addressing(self.endpoint_url),
                # None: as the surroundings say; a proxy cannot reach a stand-in on this machine.
                proxies={} if self.endpoint_url else None,
            ),
        )

    @cached_property
    def _description(self) -> Mapping[str, Any]:
        from botocore.exceptions import ClientError, EndpointConnectionError

        try:
            answer = self.client("cloudformation").describe_stacks(StackName=self.name)
            stacks: list[Mapping[str, Any]] = answer["Stacks"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ValidationError":
                raise
            stacks = []
        except EndpointConnectionError as error:
            if self.endpoint_url is None:
                raise
            raise CommandError(
                f"the {self.where} does not answer; `captions up` starts it", ExitCode.UNREACHABLE
            ) from error
        if not stacks:
            raise CommandError(
                f"there is no stack {self.name} in {self.region}; give --stack-name, --region or --profile",
                ExitCode.UNREACHABLE,
            )
        return stacks[0]

    @property
    def exists(self) -> bool:
        """Whether there is such a stack now."""
        from botocore.exceptions import ClientError

        try:
            stacks = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ValidationError":
                raise
            return False
        return bool(stacks)

    @property
    def status(self) -> str:
        """CloudFormation's status of the stack now."""
        stacks = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return str(stacks[0]["StackStatus"])

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        """What the template put out, by name."""
        return {output["OutputKey"]: output["OutputValue"] for output in self._description.get("Outputs", [])}

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parameters the stack was made with, by name."""
        return {given["ParameterKey"]: given["ParameterValue"] for given in self._description.get("Parameters", [])}

    def output(self, name: str) -> str:
        """One output.

        Raises CommandError when the stack has none of that name.
        """
        try:
            return self.outputs[name]
        except KeyError:
            raise CommandError(
                f"{self.where} has no output {name}: it is another product's, or still being made "
                f"({self._description.get('StackStatus', 'no status')})",
                ExitCode.UNREACHABLE,
            ) from None

    def nested(self, logical_id: str, name: str) -> str:
        """One output of a stack nested in this one.

        Raises CommandError when there is no such stack, or it has no output of that name.
        """
        try:
            return self.nested_outputs(logical_id)[name]
        except KeyError:
            why = f"{self.where} has no {name}: that part of it is not switched on"
            raise CommandError(why, ExitCode.UNREACHABLE) from None

    def nested_outputs(self, logical_id: str) -> dict[str, str]:
        """The outputs of a stack nested in this one; none where there is no such stack."""
        from botocore.exceptions import ClientError

        cloudformation = self.client("cloudformation")
        try:
            resource = cloudformation.describe_stack_resource(StackName=self.name, LogicalResourceId=logical_id)
            inner = resource["StackResourceDetail"]["PhysicalResourceId"]
            outputs = cloudformation.describe_stacks(StackName=inner)["Stacks"][0].get("Outputs", [])
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ValidationError":
                raise
            return {}
        return {output["OutputKey"]: str(output["OutputValue"]) for output in outputs}

    @property
    def bucket(self) -> str:
        """The bucket media is uploaded to."""
        return self.output("MediaBucketName")

    @property
    def captions_table(self) -> str:
        """The table of captions."""
        return self.output("CaptionsTableName")

    @cached_property
    def records(self) -> "Records":
        """What reads and writes single records."""
        from captions.records.table import Records

        return Records(self.client("dynamodb"), self.captions_table)

    @cached_property
    def listing(self) -> "Listing":
        """What reads records in order."""
        from captions.records.listing import Listing

        return Listing(self.client("dynamodb"), self.captions_table)


def connect(choice: Choice, directory: Path) -> Stack:
    """Return the stack a command is about.

    A command line that names a stack, region or profile means AWS; else the local stack recorded in `directory` is
    taken when there is one; else AWS with the default names.
    """
    local = None if choice.names_a_deployed_stack else read_local_state(directory)
    return connect_local(local) if local else connect_aws(choice)


def connect_local(state: LocalState) -> Stack:
    """Return a local stack by what its state file tells."""
    return Stack(
        loopback.session(state.region),
        state.stack_name,
        endpoint_url=state.aws_endpoint_url,
        model_endpoint_url=state.model_endpoint_url,
    )


def connect_aws(choice: Choice) -> Stack:
    """Return a deployed stack; credentials and defaults are found as boto3 finds them.

    Raises CommandError when no region is given, nor set for boto3.
    """
    import boto3

    session = boto3.Session(profile_name=choice.profile, region_name=choice.region)
    if session.region_name is None:
        raise CommandError(
            "no region is set to look for a deployed stack: give --region"
            if choice.names_a_deployed_stack
            else "no local stack is up here, and no region is set to look for a deployed one: "
            "run `captions up`, or give --region",
            ExitCode.UNREACHABLE,
        )
    return Stack(session, choice.stack_name or DEFAULT_STACK_NAME)
