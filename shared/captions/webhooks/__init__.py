"""Tells HTTP endpoints of other programs about completion events, signed as Standard Webhooks says.

* `endpoints` reads who gets what; `payloads` makes the bodies; `addresses` connects to public addresses alone.
* `health` keeps what is known of each endpoint, shared by all sandboxes; `deliveries` sends, tries again and gives up.
"""
