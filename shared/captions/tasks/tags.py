"""Tags: one form for each, and an allowed vocabulary where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MAX_TAGS = 20
_MAX_CHARACTERS = 40


def tidy(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags in lower case without marks around them, each once, at most twenty; sentences are no tags."""
    tidied = (" ".join(tag.strip(" #.,;:'\"").replace("_", " ").lower().split()) for tag in tags)
    return tuple(dict.fromkeys(tag for tag in tidied if tag and len(tag) <= _MAX_CHARACTERS))[:MAX_TAGS]


def mapped(tags: Iterable[str], vocabulary: Mapping[str, Iterable[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the allowed tags these stand for, and those that stand for none.

    A tag is found by itself or one of its synonyms, without regard to case, and in the plural where the vocabulary has
    the singular or the other way round (a closing "s").
    """
    known: dict[str, str] = {}
    for allowed, synonyms in vocabulary.items():
        for name in synonyms:
            known.setdefault(_key(name), allowed)
    # A tag itself stands before another's synonym.
    known |= {_key(allowed): allowed for allowed in vocabulary}
    kept: dict[str, None] = {}
    unknown: list[str] = []
    for tag in tidy(tags):
        key = _key(tag)
        meant = known.get(key) or known.get(f"{key}s") or (known.get(key[:-1]) if key.endswith("s") else None)
        if meant is None:
            unknown.append(tag)
        else:
            kept[meant] = None
    return tuple(kept), tuple(unknown)


def _key(tag: str) -> str:
    return " ".join(tag.replace("_", " ").replace("-", " ").casefold().split())
