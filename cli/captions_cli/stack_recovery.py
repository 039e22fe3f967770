"""What a stack needs before CloudFormation deploys to it again, after a deployment that did not end well."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from captions_cli.errors import CommandError, ExitCode
from captions_cli.stack import Stack

NEVER_WORKED = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"})
"""States of a stack whose first deployment failed. It can only be deleted (AWS CloudFormation user guide, "Stack
status codes")."""
DELETE_POLL = {"Delay": 5, "MaxAttempts": 360}


def prepare(stack: Stack, say: Callable[[str], None], *, dry_run: bool = False) -> None:
    """Do what must be done first, or raise CommandError with what a person must do.

    A stack that never worked is deleted, as long as its tables are empty: until then they may have deletion protection,
    which keeps CloudFormation from taking back what it made.
    """
    if not stack.exists:
        return
    status = stack.status
    if status in NEVER_WORKED:
        if dry_run:
            raise CommandError(
                f"the stack is {status}: its first deployment failed ({_why(stack)}), "
                "and a deployment removes it first",
                ExitCode.AWS,
            )
        _delete_what_never_worked(stack, status, say)
    elif status == "UPDATE_ROLLBACK_FAILED":
        raise CommandError(
            f"the stack is {status}: {_why(stack)}. Mend what that names, then "
            f"`aws cloudformation continue-update-rollback --stack-name {stack.name} --region {stack.region}`, "
            "wait for UPDATE_ROLLBACK_COMPLETE and deploy again",
            ExitCode.AWS,
        )
    elif status == "DELETE_FAILED":
        raise CommandError(
            f"the stack is {status}: {_why(stack)}. Mend what that names, then "
            f"`aws cloudformation delete-stack --stack-name {stack.name} --region {stack.region}`; "
            "once it is gone, deploy again",
            ExitCode.AWS,
        )
    elif status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        raise CommandError(f"the stack is {status}: wait until that has ended", ExitCode.AWS)


def _delete_what_never_worked(stack: Stack, status: str, say: Callable[[str], None]) -> None:
    tables = _left(stack)
    dynamodb, cloudformation = stack.client("dynamodb"), stack.client("cloudformation")
    if holding := [table for table in tables if dynamodb.scan(TableName=table, Limit=1)["Items"]]:
        raise CommandError(
            f"the stack is {status}, as its first deployment failed ({_why(stack)}), and yet there is something in "
            f"{', '.join(holding)}. Save what is wanted, delete the table (without its deletion protection: "
            f"`aws dynamodb update-table --no-deletion-protection-enabled --table-name {holding[0]}`), deploy again",
            ExitCode.AWS,
        )
    say(f"{stack.name} is {status}, as its first deployment failed: {_why(stack)}. Removing it")
    for table in tables:
        dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
        dynamodb.get_waiter("table_exists").wait(TableName=table)
    cloudformation.delete_stack(StackName=stack.name)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack.name, WaiterConfig=DELETE_POLL)
    # Deleting a stack, unlike taking back its creation, leaves what RetainExceptOnCreate names.
    for table in tables:
        if _exists(dynamodb, table):
            dynamodb.delete_table(TableName=table)


def _left(stack: Stack) -> list[str]:
    """Names of the tables that the stack's creation made and that are still there."""
    made = {
        event["PhysicalResourceId"]: None
        for event in _events(stack)
        if event["ResourceType"] == "AWS::DynamoDB::Table" and event.get("PhysicalResourceId")
    }
    return [name for name in made if _exists(stack.client("dynamodb"), name)]


def _events(stack: Stack) -> Iterator[Mapping[str, Any]]:
    """What happened to the stack, newest first."""
    for page in stack.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=stack.name):
        yield from page["StackEvents"]


def _exists(dynamodb: Any, table: str) -> bool:
    try:
        return bool(dynamodb.describe_table(TableName=table)["Table"]["TableStatus"] != "DELETING")
    except dynamodb.exceptions.ResourceNotFoundException:
        return False


def _why(stack: Stack) -> str:
    """The first failure of the last deployment, in CloudFormation's words."""
    first = "CloudFormation's events tell no reason"
    for event in _events(stack):
        reason = str(event.get("ResourceStatusReason", ""))
        if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason.lower():
            first = f"{event['LogicalResourceId']}: {' '.join(reason.split())}"
        if event["PhysicalResourceId"] == event["StackId"] and reason == "User Initiated":
            break
    return first
