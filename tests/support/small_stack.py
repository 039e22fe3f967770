"""A small SAM template whose one function does as the messages tell it, for trying the local stack itself."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captions_cli.local import LocalStack

TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Trace: {Type: String}
  Colours: {Type: CommaDelimitedList, Default: "red,green"}
  Fancy: {Type: String, Default: "false", AllowedValues: ["true", "false"]}
Conditions:
  IsFancy: !Equals [!Ref Fancy, "true"]
Resources:
  MediaBucket:
    Type: AWS::S3::Bucket
    Properties:
      VersioningConfiguration: {Status: Enabled}
      NotificationConfiguration: {EventBridgeConfiguration: {EventBridgeEnabled: true}}
  MediaBucketPolicy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref MediaBucket
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - {Effect: Deny, Principal: "*", Action: "s3:*", Resource: !Sub "${MediaBucket.Arn}/*",
             Condition: {Bool: {"aws:SecureTransport": "false"}}}
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern:
        source: [aws.s3]
        detail-type: [Object Created, Object Deleted, Object Restore Completed]
        detail: {bucket: {name: [!Ref MediaBucket]}, object: {key: [{anything-but: {prefix: "ignored/"}}]}}
      Targets:
        - {Id: events, Arn: !GetAtt EventsQueue.Arn, DeadLetterConfig: {Arn: !GetAtt RuleDeadLetterQueue.Arn}}
  EventsQueue: {Type: "AWS::SQS::Queue"}
  RuleDeadLetterQueue: {Type: "AWS::SQS::Queue"}
  WorkQueue:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 2
      RedrivePolicy: {deadLetterTargetArn: !GetAtt WorkDeadLetterQueue.Arn, maxReceiveCount: 2}
  WorkDeadLetterQueue:
    Type: AWS::SQS::Queue
    Properties:
      RedriveAllowPolicy: {redrivePermission: byQueue, sourceQueueArns: [!GetAtt WorkQueue.Arn]}
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
      KeySchema: [{AttributeName: pk, KeyType: HASH}]
      TimeToLiveSpecification: {AttributeName: expires_at, Enabled: true}
      PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}
  Secret:
    Type: AWS::SecretsManager::Secret
    Properties: {GenerateSecretString: {PasswordLength: 32}}
  Bus:
    Type: AWS::Events::EventBus
    Properties: {Name: !Ref AWS::StackName}
  BusRule:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref Bus
      EventPattern: {source: [tests]}
      Targets:
        - Id: worker
          Arn: !GetAtt WorkFunction.Arn
          InputTransformer: {InputPathsMap: {name: "$.detail.name"}, InputTemplate: '{"greeted": "hello <name>"}'}
  FancyTopic: {Type: "AWS::SNS::Topic", Condition: IsFancy}
  Layer: {Type: "AWS::Serverless::LayerVersion", Properties: {ContentUri: nowhere/}}
  WorkFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: work/
      Handler: app.handler
      Runtime: python3.13
      Timeout: 3
      MemorySize: 256
      Layers: [!Ref Layer]
      Environment:
        Variables:
          TRACE: !Ref Trace
          SECRET_ARN: !Ref Secret
          TABLE: !Ref Table
          QUEUE_URL: !GetAtt WorkQueue.QueueUrl
          SECOND_COLOUR: !Select [1, !Ref Colours]
          TOPIC: !If [IsFancy, !Ref FancyTopic, !Ref AWS::NoValue]
      Events:
        Work:
          Type: SQS
          Properties:
            Queue: !GetAtt WorkQueue.Arn
            BatchSize: 5
            FunctionResponseTypes: [ReportBatchItemFailures]
            ScalingConfig: {MaximumConcurrency: 2}
        Hourly:
          Type: ScheduleV2
          Properties: {ScheduleExpression: rate(1 hour)}
Outputs:
  Bucket: {Value: !Ref MediaBucket}
  EventsQueueUrl: {Value: !Ref EventsQueue}
  WorkQueueUrl: {Value: !Ref WorkQueue}
  DeadLetterQueueUrl: {Value: !Ref WorkDeadLetterQueue}
  RuleDeadLetterQueueUrl: {Value: !Ref RuleDeadLetterQueue}
  TableName: {Value: !Ref Table}
  SecretArn: {Value: !Ref Secret}
  BusName: {Value: !Ref Bus}
  FunctionName: {Value: !Ref WorkFunction}
"""

HANDLER = """
import json, os, time

import boto3

def handler(event, context):
    with open(os.environ["TRACE"], "a") as trace:
        trace.write(json.dumps({"event": event, "environment": dict(os.environ), "pid": os.getpid(), "context": {
            "request_id": context.aws_request_id, "function_name": context.function_name,
            "arn": context.invoked_function_arn, "memory": context.memory_limit_in_mb,
            "left_ms": context.get_remaining_time_in_millis(), "clock": time.time()}}) + "\\n")
    failures = []
    for record in event.get("Records", []):
        order = json.loads(record["body"])
        match order.get("do"):
            case "fail" if int(record["attributes"]["ApproximateReceiveCount"]) <= order["times"]:
                failures.append({"itemIdentifier": record["messageId"]})
            case "raise":
                raise ValueError("as asked")
            case "crash":
                os._exit(7)
            case "sleep" if int(record["attributes"]["ApproximateReceiveCount"]) <= order.get("times", 9):
                time.sleep(order["seconds"])
            case "malformed":
                return {"batchItemFailures": [{"itemIdentifier": ""}]}
            case "again":
                boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody=record["body"])
            case "put":
                boto3.client("dynamodb").put_item(TableName=os.environ["TABLE"], Item={"pk": {"S": order["pk"]}})
    return {"batchItemFailures": failures, "echo": event.get("echo")}
"""


def eventually(look: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Wait until `look` gives something true; return it."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.05
    while not (value := look()) and time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.5)  # what takes long is not to be kept from its work by being looked at
    assert value, "it did not happen in time"
    return value


def inside(stack: LocalStack, nested: str) -> dict[str, str]:
    """The physical ids of what is in a nested stack, by logical id."""
    cloudformation = stack.client("cloudformation")
    outer = cloudformation.describe_stack_resource(StackName=stack.stack_name, LogicalResourceId=nested)
    name = outer["StackResourceDetail"]["PhysicalResourceId"]
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}


class Small:
    """The small stack with shorthands."""

    def __init__(self, stack: LocalStack, trace: Path) -> None:
        self.stack = stack
        self._trace = trace
        self.bucket = stack.outputs["Bucket"]
        self.s3, self.sqs = stack.client("s3"), stack.client("sqs")

    def traced(self) -> list[dict[str, Any]]:
        """What the handler was invoked with, in order."""
        return [json.loads(line) for line in self._trace.read_text().splitlines()] if self._trace.exists() else []

    def receive_counts(self, name: str) -> list[str]:
        """ApproximateReceiveCount of every delivery of the message with that name."""
        return [
            record["attributes"]["ApproximateReceiveCount"]
            for call in self.traced()
            for record in call["event"].get("Records", [])
            if json.loads(record["body"]).get("name") == name
        ]

    def send(self, **order: Any) -> str:
        """Put an order for the handler on the work queue."""
        answer = self.sqs.send_message(QueueUrl=self.stack.outputs["WorkQueueUrl"], MessageBody=json.dumps(order))
        return str(answer["MessageId"])

    def arn(self, queue_url: str) -> str:
        """A queue's ARN."""
        answer = self.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    def events(self, count: int) -> list[dict[str, Any]]:
        """The next `count` events that the bucket's rule delivered, and no more than that."""
        url, result = self.stack.outputs["EventsQueueUrl"], list[dict[str, Any]]()
        while len(result) < count:
            messages = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=10)
            assert messages.get("Messages"), f"{len(result)} of {count} events came"
            for message in messages["Messages"]:
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                result.append(json.loads(message["Body"]))
        assert len(result) == count
        return result


def make_template(directory: Path) -> Path:
    """Write the small template and its handler."""
    (directory / "work").mkdir()
    (directory / "work" / "app.py").write_text(HANDLER)
    template = directory / "template.yaml"
    template.write_text(TEMPLATE)
    return template
