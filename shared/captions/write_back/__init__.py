"""Writes captions to where they are used: beside the object, and into its tags, as the policy's rules say.

* `sidecars` makes the files; `writing` keeps them as the record is.
"""
