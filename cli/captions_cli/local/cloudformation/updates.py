"""Doing what a change set comes to: resources made, changed and removed in order, and taken back where one fails.

Resources are made by `provisioning`; the owner of a stack is called with what it runs, and may refuse.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from captions_cli.local.cloudformation import provisioning
from captions_cli.local.cloudformation.answers import check_capabilities
from captions_cli.local.cloudformation.provider import Clients
from captions_cli.local.cloudformation.resources import NESTED_STACK, Resource, Translation
from captions_cli.local.cloudformation.stacks import Change, CloudFormationError, StackRecord, Stacks, changes_between
from captions_cli.local.cloudformation.translate import parse_template, translate
from captions_cli.local.errors import StackError

LOGGER = logging.getLogger(__name__)
RegionalClients = Callable[[str, str], Any]  # region, service -> boto3 client


class Updates:
    """Turns stacks into what they are to be; each method ends with the stack's status saying how that went.

    `deployed` is called with what a stack and those nested in it are now, once their resources are there; a StackError
    from it makes the update fail. `removed` is called before a stack's resources go.
    """

    def __init__(
        self,
        stacks: Stacks,
        clients: RegionalClients,
        deployed: Callable[[Sequence[Translation]], None],
        removed: Callable[[Translation], None],
    ) -> None:
        self._stacks = stacks
        self._clients = clients
        self._deployed = deployed
        self._removed = removed
        self.stopped = False

    def apply(self, stack: StackRecord, after: Translation) -> None:
        """Make of a stack what was translated, or take back what was done until it failed."""
        with stack.working:
            before = stack.translation
            verb = "CREATE" if before is None else "UPDATE"
            stack.reason = None
            stack.event(f"{verb}_IN_PROGRESS", "User Initiated")
            done: list[Change] = []
            try:
                for change in changes_between(before, after):
                    if change.after is not None:
                        self._put(stack, change, done)
                after = replace(after, outputs={**after.outputs, **dict(self._outputs_of_nested(after))})
                if stack.parent is None:  # what is nested runs with the stack around it, whose layers it may use
                    self._deployed([after, *self._stacks.nested_in(stack)])
            except Exception as error:
                if not isinstance(error, StackError | ClientError | BotoCoreError):
                    LOGGER.exception("stack_update_failed stack=%s", stack.name)
                self._take_back(stack, before, done, str(error))
                return
            stack.translation = after
            stack.updated = datetime.now(UTC) if before is not None else None
            if before is not None:
                stack.event("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
                self._clean_up(stack, before, after)
            stack.event(f"{verb}_COMPLETE")

    def _put(self, stack: StackRecord, change: Change, done: list[Change]) -> None:
        assert change.after is not None
        if self.stopped:
            raise StackError("the local stack has stopped")
        before = None if change.replaced else change.before
        verb = "CREATE" if before is None else "UPDATE"
        stack.resource_event(change.after, f"{verb}_IN_PROGRESS")
        done.append(change)
        try:
            self._provision(stack, change.after, before)
        except (StackError, ClientError, BotoCoreError) as error:
            stack.resource_event(change.after, f"{verb}_FAILED", str(error))
            raise StackError(f"{change.after.logical_id}: {error}") from error
        stack.resource_event(change.after, f"{verb}_COMPLETE")

    def _take_back(self, stack: StackRecord, before: Translation | None, done: Sequence[Change], why: str) -> None:
        verb = "ROLLBACK" if before is None else "UPDATE_ROLLBACK"
        stack.reason = why
        stack.event(f"{verb}_IN_PROGRESS", why)
        left = []
        for change in reversed(done):
            assert change.after is not None
            was_made = stack.statuses[change.after.logical_id][0].endswith("_COMPLETE")
            try:
                if change.before is not None and not change.replaced:
                    self._provision(stack, change.before, change.after)
                else:
                    self._remove(stack, change.after)
            except Exception as error:
                # What could not be made may not be there to be removed.
                LOGGER.info("rollback_left resource=%s error=%s", change.after.logical_id, error)
                if was_made:
                    action = "UPDATE" if change.before is not None and not change.replaced else "DELETE"
                    stack.resource_event(change.after, f"{action}_FAILED", str(error))
                    left.append(change.after.logical_id)
        stack.reason = f"The following resource(s) could not be rolled back: [{', '.join(left)}]." if left else why
        stack.event(f"{verb}_FAILED" if left else f"{verb}_COMPLETE")

    def _clean_up(self, stack: StackRecord, before: Translation, after: Translation) -> None:
        for change in changes_between(before, after):
            gone = change.before
            if gone is None or not (change.after is None or change.replaced):
                continue
            if gone.deletion_policy == "Retain" or gone.deletion_policy == "RetainExceptOnCreate":
                stack.resource_event(gone, "DELETE_SKIPPED")
                continue
            try:
                self._remove(stack, gone)
                stack.resource_event(gone, "DELETE_COMPLETE")
            except (StackError, ClientError, BotoCoreError) as error:
                stack.resource_event(gone, "DELETE_FAILED", str(error))  # and the update is complete, as in AWS
        for logical_id in set(before.resources) - set(after.resources):
            stack.statuses.pop(logical_id, None)

    def take_down(self, stack: StackRecord) -> None:
        """Delete a stack's resources, the last made first, and the stack if they went."""
        with stack.working:
            stack.event("DELETE_IN_PROGRESS", "User Initiated")
            failed = []
            if stack.translation is not None:
                self._removed(stack.translation)
                for resource in reversed(list(stack.translation.resources.values())):
                    if resource.deletion_policy != "Delete":
                        stack.resource_event(resource, "DELETE_SKIPPED")
                        continue
                    try:
                        self._remove(stack, resource)
                        stack.resource_event(resource, "DELETE_COMPLETE")
                    except (StackError, ClientError, BotoCoreError) as error:
                        stack.resource_event(resource, "DELETE_FAILED", str(error))
                        failed.append(resource.logical_id)
            if failed:
                stack.reason = f"The following resource(s) failed to delete: [{', '.join(failed)}]."
                stack.event("DELETE_FAILED", stack.reason)
            else:
                stack.deleted = datetime.now(UTC)
                stack.event("DELETE_COMPLETE")

    def _provision(self, stack: StackRecord, resource: Resource, before: Resource | None) -> None:
        if resource.type != NESTED_STACK:
            provisioning.put(resource, before, self.clients_of(stack))
            return
        nested = self._stacks.find(resource.reference, stack.region)
        if nested is None:
            nested = StackRecord(resource.name, stack.region, resource.reference, parent=stack.id)
            self._stacks.add(nested)
        url = str(resource.properties["TemplateURL"])
        nested.template = self.fetch(url, stack.region)
        document = parse_template(nested.template)
        nested.declared = document.get("Parameters", {})
        parameters = {name: str(value) for name, value in resource.properties.get("Parameters", {}).items()}
        if url.startswith("file:"):  # its functions run from the source tree too
            after = translate(
                Path(unquote(urlsplit(url).path)),
                stack_name=nested.name,
                region=nested.region,
                parameters=parameters,
                stack_id=nested.id,
                previous=nested.translation,
            )
        else:
            nested.capabilities = stack.capabilities
            try:
                check_capabilities(document, nested.capabilities, directly=True)
            except CloudFormationError as error:
                raise StackError(str(error)) from error
            after = self._stacks.translated(nested, nested.template, parameters)
        self.apply(nested, after)
        if not nested.status.endswith(("CREATE_COMPLETE", "UPDATE_COMPLETE")) or "ROLLBACK" in nested.status:
            raise StackError(f"{nested.name} ended as {nested.status}: {nested.reason}")

    def _outputs_of_nested(self, translation: Translation) -> Iterator[tuple[str, str]]:
        for name, (logical_id, output) in translation.nested_outputs.items():
            nested = self._stacks.find(translation.resources[logical_id].reference, translation.region)
            if nested is None or nested.translation is None or output not in nested.translation.outputs:
                raise StackError(f"Outputs.{name}: {logical_id} has no output {output}")
            yield name, nested.translation.outputs[output]

    def _remove(self, stack: StackRecord, resource: Resource) -> None:
        if resource.type != NESTED_STACK:
            provisioning.delete(resource, self.clients_of(stack))
            return
        nested = self._stacks.find(resource.reference, stack.region)
        if nested is not None and not nested.gone:
            self.take_down(nested)
            if not nested.gone:
                raise StackError(f"{nested.name} ended as {nested.status}: {nested.reason}")

    def clients_of(self, stack: StackRecord) -> Clients:
        """Return the clients of a stack's region."""
        return lambda service: self._clients(stack.region, service)

    def fetch(self, url: str, region: str) -> str:
        """A template from S3; its URL is path-style, or has the bucket in front of the host. Or a file's."""
        split = urlsplit(url)
        if split.scheme == "file":  # of a nested stack, in the source tree
            return Path(unquote(split.path)).read_text(encoding="utf-8")
        path = unquote(split.path).lstrip("/")
        host = split.hostname or ""
        if ".s3." in host or ".s3-" in host or (host.endswith(".localhost") and host != "localhost"):
            bucket, key = host.split(".s3", 1)[0].removesuffix(".localhost"), path
        else:
            bucket, _, key = path.partition("/")
        version = parse_qs(split.query).get("versionId", [])
        try:
            answer = self._clients(region, "s3").get_object(
                Bucket=bucket, Key=key, **({"VersionId": version[0]} if version else {})
            )
            return str(answer["Body"].read().decode("utf-8"))
        except ClientError as error:
            raise CloudFormationError("ValidationError", f"S3 error: {error.response['Error']['Message']}") from error
