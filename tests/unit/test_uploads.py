"""Events of S3, and which of two is the later one."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captions.uploads.version import Deletion, Ignored, UnreadableEventError, Upload, from_event, pad_sequencer

HEX = st.text(alphabet=string.hexdigits.upper()[:16], min_size=1, max_size=20)


def event(detail_type: str = "Object Created", **about: object) -> dict[str, object]:
    return {
        "source": "aws.s3",
        "detail-type": detail_type,
        "time": "2026-01-01T00:00:00Z",
        "detail": {"bucket": {"name": "media"}, "object": {"key": "a.jpg", "sequencer": "0066A8", **about}},
    }


@given(HEX, HEX)
def test_sequencers_compare_as_if_the_shorter_were_padded_with_zeros(shorter: str, other: str) -> None:
    width = max(len(shorter), len(other))
    assert (pad_sequencer(shorter) < pad_sequencer(other)) == (shorter.ljust(width, "0") < other.ljust(width, "0"))


def test_an_event_without_a_sequencer_is_older_than_any() -> None:
    assert pad_sequencer(None) < pad_sequencer("00000000000001")


def test_a_key_is_taken_as_it_stands() -> None:
    upload = from_event(event(key="a+b%20c d.jpg", size=3, etag='"abc"'))
    assert isinstance(upload, Upload)
    assert (upload.key, upload.size, upload.etag) == ("a+b%20c d.jpg", 3, "abc")


@pytest.mark.parametrize("version", [None, "", "null"])
def test_a_bucket_without_versions_gives_none(version: str | None) -> None:
    upload = from_event(event(**({} if version is None else {"version-id": version})))
    assert isinstance(upload, Upload)
    assert upload.version_id is None


@pytest.mark.parametrize(
    ("deletion_type", "permanent"), [("Delete Marker Created", False), ("Permanently Deleted", True), (None, True)]
)
def test_deletions_tell_whether_the_version_is_gone(deletion_type: str | None, permanent: bool) -> None:
    deleted = event("Object Deleted")
    deleted["detail"]["deletion-type"] = deletion_type  # type: ignore[index]
    deletion = from_event(deleted)
    assert isinstance(deletion, Deletion)
    assert deletion.permanent is permanent


def test_the_test_event_asks_for_nothing() -> None:
    assert isinstance(from_event({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}), Ignored)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["source", "detail", "detail-type", "bucket", "object"]) | st.text(), inner
            )
        ),
    )
)
def test_anything_else_is_refused_by_name(value: object) -> None:
    with pytest.raises(UnreadableEventError):
        from_event(value)


@pytest.mark.parametrize("wrong", [{"sequencer": "not hex"}, {"sequencer": "A" * 65}, {"key": ""}, {"size": -1}])
def test_fields_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnreadableEventError):
        from_event(event(**wrong))
