"""What a caption and a query have in common: folded words, and facets that stand for everything but words.

Case, width and accents are folded. Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer,
Burmese), and Korean, whose particles cling to words, are cut into single characters: a word of a query is then a phrase
of characters, which is found wherever it stands. SQLite's FTS5 does the rest: English stems, phrases, beginnings of
words.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

TOKENIZER = "unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'"
"""What words consist of: marks too, as Indic vowels are. FTS5's own folding knows Latin letters alone."""
MAX_QUERY_CHARACTERS = 500
MAX_TERMS = 16
MAX_LEFT_OUT = 3
"""Words that a relaxed query does without at most."""

_MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff]"
)
"""Accents, Hebrew points, Arabic vowel signs and the stroke that lengthens Arabic words."""
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff])"
)
_LETTERS = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
    | {"\u0649": "\u064a", "\u06cc": "\u064a", "\u0629": "\u0647", "\u06c1": "\u0647", "\u06a9": "\u0643"}
)
"""Arabic letters too that are written one for the other, and have codes of their own in Persian and Urdu: yeh, heh, kaf
(as Lucene's ArabicNormalizer and PersianNormalizer have it)."""
_PARTS = re.compile(r'(-?)(?:"([^"]*)"|(\S+))')
_WORD = re.compile(r"[^\W_]")


class QueryError(ValueError):
    """The query asks for nothing, or cannot be understood; the message says why."""


def folded(text: str) -> str:
    """Return a text without case, width and accents, with spaces around characters of scripts that have none."""
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()))
    return _UNSPACED.sub(r" \1 ", unicodedata.normalize("NFC", bare).translate(_LETTERS))


def facet(kind: str, value: str) -> str:
    """Return the token that stands for a value: `p` a beginning of keys, `c` a category, `t` a tag."""
    return kind + str(int.from_bytes(hashlib.blake2b(value.encode(), digest_size=7).digest()))


def facets(key: str, category: str, tags: Iterable[str]) -> str:
    """Return the tokens of everything an upload may be filtered by."""
    folders = (facet("p", folder) for folder in _folders(key))
    return " ".join((*folders, facet("c", category), *dict.fromkeys(facet("t", tidy_tag(tag)) for tag in tags)))


def tidy_tag(tag: str) -> str:
    """Return a tag as tags are compared."""
    return " ".join(folded(tag).split())


def prefix_facet(prefix: str) -> str | None:
    """Return the token of the longest whole folder that a prefix begins with; None: it has none."""
    return next((facet("p", folder) for folder in reversed(list(_folders(prefix)))), None)


def _folders(key: str) -> Iterator[str]:
    for slash in re.finditer("/", key):
        yield key[: slash.end()]


@dataclass(frozen=True)
class QueryWords:
    """A query's words, folded."""

    loose: tuple[str, ...] = ()
    """Each as an FTS5 string, found in other forms of the English word too; or a beginning, with an asterisk."""
    phrases: tuple[str, ...] = ()
    """To be found just so."""
    without: tuple[str, ...] = ()
    without_phrases: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> "QueryWords":
        """Read `dog beach`, `"a red ball"`, `bea*` and `-cat`. Raises QueryError."""
        if len(text) > MAX_QUERY_CHARACTERS:
            raise QueryError(f"a query has at most {MAX_QUERY_CHARACTERS} characters")
        kept: dict[tuple[bool, bool], list[str]] = {
            (no, quoted): [] for no in (True, False) for quoted in (True, False)
        }
        for minus, phrase, word in _PARTS.findall(text):
            term = folded(phrase or word)
            if _WORD.search(term):
                beginning = "*" if word.endswith("*") else ""
                kept[bool(minus), bool(phrase)].append(_quoted(term) + beginning)
        read = cls(
            loose=tuple(dict.fromkeys(kept[False, False])),
            phrases=tuple(dict.fromkeys(kept[False, True])),
            without=tuple(dict.fromkeys(kept[True, False])),
            without_phrases=tuple(dict.fromkeys(kept[True, True])),
        )
        if len(read.loose + read.phrases + read.without + read.without_phrases) > MAX_TERMS:
            raise QueryError(f"a query has at most {MAX_TERMS} words and phrases")
        return read

    @property
    def asked(self) -> bool:
        """Whether there is anything to be found, rather than only to be left out."""
        return bool(self.loose or self.phrases)

    def relaxed(self, common: frozenset[str] = frozenset()) -> int:
        """Return the last level of `match`. Of `common` words (members of `loose`) relaxed levels need none."""
        rare = len(self._rare(common))
        return min(rare // 2, MAX_LEFT_OUT) + (rare < len(self.loose) and rare > 0)

    def match(self, level: int = 0, common: frozenset[str] = frozenset(), required: Sequence[str] = ()) -> str | None:
        """Return the FTS5 query of a level; None: everything matches.

        Level 0 asks for every word, level 1 for all but the common ones if there are any, and each one after that for
        one word less. `required` are terms of facets.
        """
        asked: list[str] = []
        words = list(self.phrases)
        if level == 0:
            words += self.loose
        else:
            rare = self._rare(common)
            left_out = level - (len(rare) < len(self.loose))
            some = [" AND ".join(of) for of in combinations(rare, len(rare) - left_out)]
            words.append(" OR ".join(f"({of})" for of in some))
        if words:
            asked.append(f"words : ({' AND '.join(f'({word})' for word in words)})")
        if required:
            asked.append(f"facets : ({' AND '.join(f'({term})' for term in required)})")
        query = " AND ".join(asked)
        # Phrases stand in the index by the stems of their words: whether one is there just so shows in the caption.
        return f"({query}) NOT ({self.unwanted[0]})" if self.without and asked else query or None

    @property
    def unwanted(self) -> tuple[str, str]:
        """The FTS5 queries of what must not be there: words, and without stems, phrases; empty: none."""
        without = f"words : ({' OR '.join(self.without)})" if self.without else ""
        return without, f"words : ({' OR '.join(self.without_phrases)})" if self.without_phrases else ""

    @property
    def exact(self) -> str:
        """The FTS5 query, without stems, of the phrases that must be there; empty: none."""
        return f"words : ({' AND '.join(self.phrases)})" if self.phrases else ""

    def _rare(self, common: frozenset[str]) -> list[str]:
        return [word for word in self.loose if word not in common] or list(self.loose)


def plain(text: str) -> str:
    """Return what a query asks for as plain text: no signs of phrases and beginnings, nothing to be left out."""
    wanted = (phrase or word.rstrip("*") for minus, phrase, word in _PARTS.findall(text) if not minus)
    return " ".join(part for part in wanted if _WORD.search(part))


def _quoted(term: str) -> str:
    # For FTS5 a query ends where a zero is.
    return '"' + " ".join(term.replace('"', " ").replace("\0", " ").split()) + '"'
