"""Other people's text on a terminal: what the terminal would act upon is shown as escapes, in JSON as JSON's own."""

import json


def printable(value: object) -> str:
    """Text on one line that is safe on any terminal: control characters and undecodable bytes are shown as escapes.

    So is what changes the direction of text or has no width.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def printable_lines(text: str) -> str:
    """Text of several lines, each of them `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: str, *, only_ascii: bool) -> str:
    """A JSON document with as escapes what `printable` shows so, and with `only_ascii` all that is not ASCII.

    Outside its strings JSON has no such characters but line ends, so the document says the same.
    """
    return "".join(
        char if char == "\n" or (char.isprintable() and (char.isascii() or not only_ascii)) else _escaped(char)
        for char in document
    )


def _escaped(char: str) -> str:
    # json.dumps leaves DEL as it is.
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]
