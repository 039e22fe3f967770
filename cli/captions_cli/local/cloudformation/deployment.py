"""What a stack runs: its functions, the queues they read and their schedules, and how an update takes their place."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captions_cli.local.aws.events import parse_function_name
from captions_cli.local.aws.schedules import parse_schedule
from captions_cli.local.aws.server import ServiceLocks
from captions_cli.local.cloudformation import artifacts
from captions_cli.local.cloudformation.artifacts import Artifacts
from captions_cli.local.cloudformation.resources import ACCOUNT_ID, CODE_BUCKET, Resource, Translation, partition_of
from captions_cli.local.errors import StackError
from captions_cli.local.lambda_runtime.pump import EventSource, Pump, Schedule
from captions_cli.local.lambda_runtime.sandboxes import Function, Sandboxes

LOGGER = logging.getLogger(__name__)

_DEFAULT_TIMEOUT_S = 3  # Lambda's
_DEFAULT_MEMORY_MB = 128  # Lambda's
_DEFAULT_BATCH_SIZE = 10  # of an SQS event source


@dataclass
class Deployment:
    """What runs of one stack."""

    translation: Translation
    functions: Mapping[str, Function]  # by logical id
    sources: list[EventSource]
    schedules: list[Schedule]
    pump: Pump | None = None


class Deployments:
    """What runs of all stacks.

    A function whose code is uploaded runs with its layers on Lambda's version of Python, where this machine has one;
    one of the source tree with `python` and the packages that it has, and `product` before them. `s3` gives a region's
    client.
    """

    def __init__(
        self,
        sandboxes: Sandboxes,
        locks: ServiceLocks,
        *,
        uploaded: Artifacts,
        s3: Callable[[str], Any],
        python: str,
        product: Path | None,
        run_schedules: bool,
        visibility_s: int | None,
    ) -> None:
        self._sandboxes = sandboxes
        self._locks = locks
        self._artifacts = uploaded
        self._s3 = s3
        self._python = python
        self._product = product
        self._run_schedules = run_schedules
        self._visibility_s = visibility_s
        self._guard = threading.Lock()
        self._by_stack: dict[str, Deployment] = {}

    def prepare(self, translation: Translation) -> Deployment:
        """Read what a stack is to run before it is there, so that its functions can start meanwhile."""
        prepared = self._read(translation, {}, list(translation.of_type("AWS::Lambda::LayerVersion")))
        with self._guard:
            self._by_stack[translation.stack_id] = prepared
        return prepared

    def deploy(self, translations: Sequence[Translation]) -> None:
        """Run what a stack and those nested in it are now, in place of what they were; what is under way ends as it
        began.

        Raises StackError, and leaves what runs alone, if that cannot be run here.
        """
        layers = [layer for each in translations for layer in each.of_type("AWS::Lambda::LayerVersion")]
        running = []
        for translation in translations:
            before = self._of(translation.stack_id)
            running.append((before, self._read(translation, before.functions if before else {}, layers)))
        for before, after in running:
            self._replace(before, after)

    def _replace(self, before: Deployment | None, after: Deployment) -> None:
        after.pump = Pump(self._sandboxes, self._locks, after.sources, after.schedules, self._visibility_s)
        with self._guard:
            self._by_stack[after.translation.stack_id] = after
        if before is not None and before.pump is not None:
            before.pump.retire()
        after.pump.start()
        for function in before.functions.values() if before else ():
            if function not in after.functions.values():
                self._sandboxes.retire(function)

    def remove(self, translation: Translation) -> None:
        """Stop what a stack runs."""
        with self._guard:
            resources = self._by_stack.pop(translation.stack_id, None)
        if resources is not None:
            if resources.pump is not None:
                resources.pump.retire()
            for function in resources.functions.values():
                self._sandboxes.retire(function)

    def stop(self) -> None:
        """Stop everything at once."""
        for deployment in self.all():
            if deployment.pump is not None:
                deployment.pump.stop()

    def crash(self) -> None:
        """End every pump and worker as a crash would, and start new pumps."""
        for deployment in self.all():
            if deployment.pump is not None:
                deployment.pump.stop()
        self._sandboxes.kill_function()
        for deployment in self.all():
            deployment.pump = Pump(
                self._sandboxes, self._locks, deployment.sources, deployment.schedules, self._visibility_s
            )
            deployment.pump.start()

    def all(self) -> list[Deployment]:
        """What runs of each stack."""
        with self._guard:
            return list(self._by_stack.values())

    def wake(self) -> None:
        """A message became receivable."""
        for deployment in self.all():
            if deployment.pump is not None:
                deployment.pump.wake()

    def find(self, name: str, region: str | None = None) -> tuple[Deployment, Function] | None:
        """A function by its logical id or name, of one region or whichever has it."""
        for deployment in self.all():
            for function in deployment.functions.values():
                if name in {function.logical_id, function.name} and region in {None, function.region}:
                    return deployment, function
        return None

    def _of(self, stack_id: str) -> Deployment | None:
        with self._guard:
            return self._by_stack.get(stack_id)

    def _read(self, translation: Translation, before: Mapping[str, Function], layers: Sequence[Resource]) -> Deployment:
        functions = {}
        for resource in translation.of_type("AWS::Lambda::Function"):
            function = self._function(translation, resource, layers)
            old = before.get(resource.logical_id)
            functions[resource.logical_id] = old if old is not None and old.same_as(function) else function
        return Deployment(
            translation,
            functions,
            event_sources(translation, functions),
            schedules(translation, functions) if self._run_schedules else [],
        )

    def _function(self, translation: Translation, resource: Resource, layers: Sequence[Resource]) -> Function:
        properties = resource.properties
        variables = properties.get("Environment", {}).get("Variables", {})
        local = translation.code.get(resource.logical_id)
        if properties.get("Code", {}).get("S3Bucket") == CODE_BUCKET:
            if local is None or not local.is_dir():
                raise StackError(f"the code of {resource.logical_id} is not there: {local}")
            code, python, log_name = local, self._python, resource.logical_id
            packages: tuple[Path, ...] = (self._product,) if self._product is not None else ()
        else:
            code = self._artifacts.unpacked(properties["Code"], self._s3(translation.region))
            python, packages = self._layers(translation.region, resource, layers)
            log_name = f"{translation.region}.{translation.stack_name}.{resource.logical_id}"
        return Function(
            logical_id=resource.logical_id,
            name=resource.name,
            arn=_function_arn(translation.region, resource.name),
            handler=properties["Handler"],
            code=code,
            timeout_s=float(properties.get("Timeout", _DEFAULT_TIMEOUT_S)),
            memory_mb=int(properties.get("MemorySize", _DEFAULT_MEMORY_MB)),
            environment={name: str(value) for name, value in variables.items()},
            python=python,
            packages=packages,
            log_name=log_name,
            forked=self._product is not None and packages == (self._product,),
            recursive_loop=str(properties.get("RecursiveLoop", "Terminate")),
        )

    def _layers(self, region: str, function: Resource, layers: Sequence[Resource]) -> tuple[str, tuple[Path, ...]]:
        """The interpreter for a function whose code is uploaded, and where it imports from."""
        by_arn = {layer.reference: layer for layer in layers}
        paths: list[Path] = []
        for arn in function.properties.get("Layers", []):
            if arn.split(":")[4] != ACCOUNT_ID:
                continue  # another account's, which is not here
            if arn not in by_arn:
                raise StackError(f"{function.logical_id}: the local stack has no layer {arn}")
            content = by_arn[arn].properties["Content"]
            paths += artifacts.layer_paths(self._artifacts.unpacked(content, self._s3(region)))
        built_for = str((function.properties.get("Architectures") or ["x86_64"])[0])
        python = artifacts.lambda_python()
        if python is None:
            # Packages that are compiled for Lambda's Python cannot be imported: this Python has its own.
            return self._python, tuple(path for path in paths if not artifacts.has_third_parties(path))
        if built_for != artifacts.machine() and any(map(artifacts.has_third_parties, paths)):
            raise StackError(
                f"{function.logical_id} is for {built_for}, and this machine is {artifacts.machine()}: "
                f"make build ARCH={artifacts.machine()}"
            )
        return python, (*paths, self._artifacts.runtime())


def event_sources(translation: Translation, by_id: Mapping[str, Function]) -> list[EventSource]:
    """What the stack's event source mappings say. Raises StackError for one that does not read an SQS queue."""
    sources = []
    by_name = {function.name: function for function in by_id.values()}
    for resource in translation.of_type("AWS::Lambda::EventSourceMapping"):
        properties = resource.properties
        arn = str(properties.get("EventSourceArn", ""))
        if ":sqs:" not in arn:
            raise StackError(f"{resource.logical_id}: the local stack polls SQS queues only, not {arn}")
        filters = properties.get("FilterCriteria", {}).get("Filters", [])
        sources.append(
            EventSource(
                function=by_name[parse_function_name(properties["FunctionName"])],
                queue_arn=arn,
                batch_size=int(properties.get("BatchSize", _DEFAULT_BATCH_SIZE)),
                window_s=float(properties.get("MaximumBatchingWindowInSeconds", 0)),
                maximum_concurrency=_maximum_concurrency(properties),
                partial_responses="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
                filters=tuple(json.loads(f["Pattern"]) for f in filters),
                enabled=str(properties.get("Enabled", True)).lower() == "true",
            )
        )
    return sources


def schedules(translation: Translation, by_id: Mapping[str, Function]) -> list[Schedule]:
    """The stack's schedules: rules with a ScheduleExpression, and EventBridge Scheduler's."""
    by_name = {function.name: function for function in by_id.values()}
    deployed = []
    for resource in translation.of_type("AWS::Events::Rule", "AWS::Scheduler::Schedule"):
        properties = resource.properties
        expression = properties.get("ScheduleExpression")
        if expression is None or properties.get("State", "ENABLED") != "ENABLED":
            continue
        is_rule = resource.type == "AWS::Events::Rule"
        for target in properties.get("Targets", []) if is_rule else [properties["Target"]]:
            if ":lambda:" not in target["Arn"]:
                raise StackError(
                    f"{resource.logical_id}: the local stack schedules functions only, not {target['Arn']}"
                )
            deployed.append(
                Schedule(
                    arn=_schedule_arn(translation.region, resource),
                    function=by_name[parse_function_name(target["Arn"])],
                    next_after=parse_schedule(expression),
                    input=target.get("Input"),
                    source="aws.events" if is_rule else "aws.scheduler",
                )
            )
    return deployed


def coverage(translation: Translation) -> list[tuple[str, str, str, str]]:
    """For each resource: logical id, type, how it is treated, and what that means."""
    return [
        (resource.logical_id, resource.type, resource.treatment.treatment, resource.treatment.note)
        for resource in translation.resources.values()
    ]


def _maximum_concurrency(properties: Mapping[str, Any]) -> int | None:
    most = properties.get("ScalingConfig", {}).get("MaximumConcurrency")
    return None if most is None else int(most)


def _function_arn(region: str, name: str) -> str:
    return f"arn:{partition_of(region)}:lambda:{region}:{ACCOUNT_ID}:function:{name}"


def _schedule_arn(region: str, resource: Resource) -> str:
    if resource.type == "AWS::Events::Rule":
        return f"arn:{partition_of(region)}:events:{region}:{ACCOUNT_ID}:rule/{resource.name}"
    return f"arn:{partition_of(region)}:scheduler:{region}:{ACCOUNT_ID}:schedule/default/{resource.name}"
