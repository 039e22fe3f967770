"""Search among captions by their words, which are kept as SQLite segments in S3 (docs/decisions/0011-search.md).

The index only proposes uploads. The captions table decides: each proposal is read there and compared with the query, so
that a deleted caption is never shown and an edited one is shown as it is.
"""
