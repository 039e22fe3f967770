"""Repairs of moto's S3."""

from __future__ import annotations

import re
import urllib.parse
import uuid
from typing import Any

from captions_cli.local.aws.events import EMPTY_ETAG, EventRouter, Sequencers, s3_event
from captions_cli.local.aws.repairs.replacements import Repair, Replace
from captions_cli.local.aws.server import current_call

_CREATED_REASONS = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "POST Object",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
}


def s3_repairs(router: EventRouter) -> tuple[Repair, ...]:
    """Return the repairs; `router` gets an event for each change of an object."""
    events = _ObjectEvents(router)
    return (
        Repair("path-style", "It takes the host's first label for a bucket, whatever the host is called.", _path_style),
        Repair(
            "created",
            "Sequencers and event ids are constant; a multipart upload has two events, tagging has some.",
            events.put_created,
        ),
        Repair("deleted", "A delete in a versioned bucket has no event.", events.put_deleted),
        Repair(
            "policies",
            "A statement counts whatever its conditions say, so that 'deny without TLS' denies everything: bucket "
            "policies are kept and shown, not enforced.",
            _policies,
        ),
        Repair("notifications", "A bucket does not say that its notifications go to EventBridge.", _notifications),
        Repair(
            "listed-keys",
            "Versions are listed without the encoding of keys that was asked for: with a control character in a key "
            "the answer is no XML.",
            _listed_keys,
        ),
        Repair(
            "customer-keys",
            "Objects under a customer's own key (SSE-C) are handed out to requests without that key.",
            _customer_keys,
        ),
        Repair("posted-versions", "A form that made a version is not told which, as a PUT is.", _posted_versions),
    )


def _path_style(replace: Replace) -> None:
    import moto.s3.utils
    import moto.settings

    # The server makes every request path-style. moto asks its settings at each request, and its helpers once.
    replace(moto.settings, "S3_IGNORE_SUBDOMAIN_BUCKETNAME", True)
    replace(moto.s3.utils, "S3_IGNORE_SUBDOMAIN_BUCKETNAME", True)


def _policies(replace: Replace) -> None:
    from moto.iam.access_control import PermissionResult
    from moto.s3.models import FakeBucket

    replace(FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL)


def _notifications(replace: Replace) -> None:
    from moto.s3.responses import S3Response

    replace(S3Response, "get_bucket_notification", _telling_eventbridge(S3Response.get_bucket_notification))


def _listed_keys(replace: Replace) -> None:
    from moto.s3.responses import S3Response

    replace(S3Response, "list_object_versions", _listing_encoded(S3Response.list_object_versions))


def _customer_keys(replace: Replace) -> None:
    from moto.s3.responses import S3Response

    replace(S3Response, "put_object", _putting_sse_c(S3Response.put_object))
    replace(S3Response, "_get_key", _getting_sse_c(S3Response._get_key))


def _posted_versions(replace: Replace) -> None:
    from moto.s3.responses import S3Response

    original = S3Response._bucket_response_post

    def posted(self: Any, request: Any, bucket_name: str) -> Any:
        status, headers, body = original(self, request, bucket_name)
        if not self.is_delete_keys() and self.backend.get_bucket(bucket_name).is_versioned:
            stored = self.backend.get_object(bucket_name, self.querystring["key"][0])
            headers = {**headers, "x-amz-version-id": stored.version_id}
        return status, headers, body

    replace(S3Response, "_bucket_response_post", posted)


class _ObjectEvents:
    """Sends one event for each change of an object through the router."""

    def __init__(self, router: EventRouter) -> None:
        self._router = router
        self._sequencers = Sequencers()

    def put_created(self, replace: Replace) -> None:
        import moto.s3.notifications

        replace(moto.s3.notifications, "_send_event_bridge_message", self._s3_created)

    def put_deleted(self, replace: Replace) -> None:
        from moto.s3.models import S3Backend

        replace(S3Backend, "delete_object", self._deleting(S3Backend.delete_object))

    def _s3_created(self, account_id: str, bucket: Any, event_name: str, key: Any) -> None:
        name = str(getattr(event_name, "value", event_name))
        if name == "s3:ObjectRestore:Post":
            # A restore that takes hours in AWS is over at once here.
            etag, event = key.etag.replace('"', ""), "Object Restore Completed"
            self._publish(event, bucket, key.name, version_id=key.version_id, etag=etag, size=key.size, reason=None)
            return
        reason = _CREATED_REASONS.get(name)
        if reason is None:
            return  # removals are sent by _deleting; tagging and ACL events of uploads do not exist in AWS
        if reason == "PutObject" and key.multipart is not None:
            return  # moto announces a completed multipart upload twice
        self._publish(
            "Object Created",
            bucket,
            key.name,
            version_id=key.version_id,
            etag=key.etag.replace('"', ""),
            size=key.size,
            reason=reason,
        )

    def _deleting(self, original: Any) -> Any:
        events = self

        def delete_object(
            self: Any, bucket_name: str, key_name: str, version_id: str | None = None, bypass: bool = False
        ) -> tuple[bool, dict[str, Any]]:
            bucket = self.get_bucket(bucket_name)
            before = {str(key.version_id): key for key in bucket.keys.getlist(key_name, [])}
            success, headers = original(self, bucket_name, key_name, version_id=version_id, bypass=bypass)
            if not success or not _events_on(bucket):
                return success, headers
            if bucket.is_versioned and version_id is None:
                events._publish_deleted(bucket, key_name, headers["version-id"], EMPTY_ETAG, "Delete Marker Created")
            elif bucket.is_versioned and str(version_id) in before:
                etag = getattr(before[str(version_id)], "etag", EMPTY_ETAG)
                events._publish_deleted(bucket, key_name, version_id, etag, "Permanently Deleted")
            elif not bucket.is_versioned and before:
                etag = next(iter(before.values())).etag
                events._publish_deleted(bucket, key_name, None, etag, "Permanently Deleted")
            return success, headers

        return delete_object

    def _publish_deleted(self, bucket: Any, key: str, version_id: str | None, etag: str, deletion_type: str) -> None:
        self._publish(
            "Object Deleted",
            bucket,
            key,
            version_id=version_id,
            etag=etag.replace('"', ""),
            size=None,
            reason="DeleteObject",
            deletion_type=deletion_type,
        )

    def _publish(self, detail_type: str, bucket: Any, key: str, *, version_id: str | None, **facts: Any) -> None:
        call = current_call.get()
        event = s3_event(
            detail_type,
            region=bucket.region_name,
            bucket=bucket.name,
            key=key,
            version_id=str(version_id) if bucket.is_versioned else None,
            # Of a restore S3 tells no sequencer: nothing was written.
            sequencer=self._sequencers.next() if facts["reason"] is not None else None,
            request_id=call.request_id if call else uuid.uuid4().hex[:16].upper(),
            source_ip=str(call.environ["REMOTE_ADDR"]) if call else "127.0.0.1",
            **facts,
        )
        self._router.publish("default", bucket.region_name, event)


def _events_on(bucket: Any) -> bool:
    configuration = bucket.notification_configuration
    return configuration is not None and configuration.event_bridge is not None


def _telling_eventbridge(original: Any) -> Any:
    def get_bucket_notification(self: Any) -> Any:
        answer = original(self)
        configuration = self.backend.get_bucket_notification_configuration(self.bucket_name)
        if configuration is None or configuration.event_bridge is None:
            return answer
        status, headers, body = answer
        text = body.decode() if isinstance(body, bytes) else str(body)
        opened = re.sub(r"<NotificationConfiguration([^>]*)/>", r"<NotificationConfiguration\1>", text)
        closed = opened if "</NotificationConfiguration>" in opened else f"{opened}</NotificationConfiguration>"
        extended = closed.replace(
            "</NotificationConfiguration>", "<EventBridgeConfiguration/></NotificationConfiguration>"
        )
        return status, headers, extended

    return get_bucket_notification


def _listing_encoded(original: Any) -> Any:
    """ListObjectVersions with EncodingType=url, which every SDK asks for (Amazon S3 API, ListObjectVersions)."""

    def quoted(value: Any) -> Any:
        return urllib.parse.quote(value) if isinstance(value, str) else value

    def list_object_versions(self: Any) -> Any:
        if self.querystring.get("encoding-type", [None])[0] != "url":
            return original(self)
        write = self.serialized

        def encoded(answer: Any) -> Any:
            listed = answer.result
            for name in ("Prefix", "Delimiter", "KeyMarker", "NextKeyMarker"):
                if name in listed:
                    listed[name] = quoted(listed[name])
            for version in (*listed["Versions"], *listed["DeleteMarkers"]):
                version["Key"] = quoted(version["Key"])
            for common in listed.get("CommonPrefixes", ()):
                common["Prefix"] = quoted(common["Prefix"])
            listed["EncodingType"] = "url"
            return write(answer)

        self.serialized = encoded
        try:
            return original(self)
        finally:
            del self.serialized

    return list_object_versions


_SSE_C_KEY = "x-amz-server-side-encryption-customer-key-md5"


def _putting_sse_c(original: Any) -> Any:
    def put_object(self: Any) -> Any:
        answer = original(self)
        given = self.headers.get(_SSE_C_KEY)
        if given is not None and "x-amz-copy-source" not in self.headers:
            self.backend.get_object(self.bucket_name, self.parse_key_name()).sse_c_key = given
        return answer

    return put_object


def _getting_sse_c(original: Any) -> Any:
    """Ask for the key again where an object was stored under SSE-C.

    Source: Amazon S3 user guide, "Using server-side encryption with customer-provided keys (SSE-C)".
    """

    def _get_key(self: Any, *args: Any, **kwargs: Any) -> Any:
        from moto.s3.exceptions import S3ClientError

        key, not_modified = original(self, *args, **kwargs)
        wanted, given = getattr(key, "sse_c_key", None), self.headers.get(_SSE_C_KEY)
        if wanted is not None and given is None:
            raise S3ClientError(
                "InvalidRequest",
                "The object was stored using a form of Server Side Encryption. "
                "The correct parameters must be provided to retrieve the object.",
            )
        if wanted is not None and wanted != given:
            raise S3ClientError("AccessDenied", "Access Denied")
        return key, not_modified

    return _get_key
