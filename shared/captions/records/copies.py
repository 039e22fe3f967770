"""The `copy_of` index: which uploads took an upload's caption, the newest first.

    copy_of                         completed_at
    <bucket/key of the exemplar>    when the copy ended

An upload stands in it as long as its caption, or the model's answer beside a person's words, is another one's
(`Provenance.copied_from`). The index is made where there is an API to show it.
"""

COPY = frozenset({"copy_of"})
"""The attribute that makes an item stand in the index, beside the end that every ended item has."""
