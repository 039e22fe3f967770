"""Languages: whether a tag is one (BCP-47), and whether a text can be in the language it should be in.

What is read from a text is deterministic: its scripts always, and among languages of the Latin script the
words that nearly every sentence of a language has. It finds answers in the wrong language; it does not name the
language of every text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

UNDETERMINED = "und"
"""The tag of a text whose language is not known (RFC 5646, 4.1)."""
_MAX_TAG_CHARACTERS = 64

# ISO 15924 codes, as a language's likely script, and how Unicode's character names begin that are written in it.
_SCRIPTS: dict[str, frozenset[str]] = {
    "Latn": frozenset({"LATIN"}),
    "Cyrl": frozenset({"CYRILLIC"}),
    "Grek": frozenset({"GREEK"}),
    "Hans": frozenset({"CJK", "BOPOMOFO"}),
    "Hant": frozenset({"CJK", "BOPOMOFO"}),
    "Jpan": frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    "Kore": frozenset({"HANGUL", "CJK"}),
    "Arab": frozenset({"ARABIC"}),
    "Hebr": frozenset({"HEBREW"}),
    "Deva": frozenset({"DEVANAGARI"}),
    "Beng": frozenset({"BENGALI"}),
    "Taml": frozenset({"TAMIL"}),
    "Telu": frozenset({"TELUGU"}),
    "Thai": frozenset({"THAI"}),
    "Geor": frozenset({"GEORGIAN"}),
    "Armn": frozenset({"ARMENIAN"}),
    "Ethi": frozenset({"ETHIOPIC"}),
    "Khmr": frozenset({"KHMER"}),
}
_KANA = frozenset({"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"})

# Function words that are frequent in a language; what it shares with others stands in both lists, so that it tells none
# of them from the other.
_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": (
            "the and of with is are that this from which has have by an their its while was were a in on to at "
            "for or as it be two up out next into over"
        ),
        "de": (
            "der die das und ist ein eine einen einem einer mit auf im den dem von nicht zu sich sind vor in an "
            "am aus für bei als wie zum zur des oder hat über er sie es"
        ),
        "fr": (
            "le les des est une dans et du au aux avec sur qui il elle pas pour sont ce cette à en de la un par "
            "ou d l se sa son leur plus deux où"
        ),
        "es": (
            "el los las una un y en con que por para del está su se al son como sobre de a la o es dos sin más "
            "entre hay junto"
        ),
        "it": (
            "il gli di una che con per del della nel nella sono è un e da sul alla dei a la le i in lo o si due "
            "su al ed più tra"
        ),
        "pt": (
            "o os uma um e com que não em do da no na para por são está dos das ao a de se as sobre mais dois "
            "entre junto"
        ),
        "nl": (
            "het een van en met op is zijn de niet voor aan dat te bij staat wordt door in of naar over uit als "
            "ook om er hij ze twee"
        ),
        "sv": "och en ett på med är som av det i den till för från inte har om vid under två sitter står han hon",
        "da": "og en et på med er som af det i den til for fra ikke har om ved under to han hun der sidder",
        "nb": "og en et på med er som av det i den til for fra ikke har om ved under to han hun der sitter",
        "pl": "i w na z jest się nie do od przez są oraz która który jego a o po za dwa ze jak dla przy",
        "tr": "ve bir bu ile için olan üzerinde gibi var değil çok daha da iki en ne o de ki ya",
        "id": (
            "yang dan di dengan ini itu untuk dari sebuah seorang adalah pada sedang ada oleh ke atau juga dua satu"
        ),
    }.items()
}
_SAME: dict[str, str] = {"no": "nb", "nn": "nb", "ms": "id"}
_NEAR: frozenset[frozenset[str]] = frozenset(
    {frozenset({"da", "nb"}), frozenset({"sv", "nb"}), frozenset({"sv", "da"}), frozenset({"es", "pt"})}
)
_VARIANTS = frozenset({"valencia", "tarask", "arevela", "arevmda", "hepburn", "pinyin", "wadegile", "oxendict"})
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def tag(value: str) -> str | None:
    """Return a language tag in its standard form (`pt-br` -> `pt-BR`), None if it is none or names no language.

    Subtags are looked up in the IANA registry that langcodes carries.
    """
    value = value.strip()
    if not value or len(value) > _MAX_TAG_CHARACTERS:
        return None
    from langcodes import standardize_tag, tag_is_valid
    from langcodes.tag_parser import LanguageTagError

    try:
        return str(standardize_tag(value)) if tag_is_valid(value) else None
    except (LanguageTagError, ValueError):
        return None


@lru_cache(maxsize=1_024)
def _likely_script(language: str) -> str | None:
    from langcodes import Language

    try:
        script = Language.get(language).maximize().script
    except ValueError:  # LanguageTagError is one
        return None
    return str(script) if script else None


@lru_cache(maxsize=8_192)
def _script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]


def scripts(text: str) -> Counter[str]:
    """Return how many letters of each script a text holds, by how Unicode names it (LATIN, CJK, HIRAGANA, ...)."""
    return Counter(_script(char) for char in text if char.isalpha())


def spoken(language: str) -> str:
    """Return what of a tag says how to write: language, script, region and variants of spelling that are known.

    Every other subtag is any word of up to eight letters, and so is no part of an instruction to a model.
    """
    subtags = language.split("-")
    kept = subtags[:1]
    for subtag in subtags[1:]:
        known = subtag.isdigit() or len(subtag) in (2, 4) or subtag.lower() in _VARIANTS or subtag[:1].isdigit()
        if len(subtag) == 1 or not known:
            break
        kept.append(subtag)
    return "-".join(kept)


def primary(language: str) -> str:
    """Return the primary subtag: `pt` of `pt-BR`."""
    return language.partition("-")[0].lower()


def contradiction(text: str, language: str) -> str | None:
    """Return why a text cannot be in the language with this tag, None if it can.

    Names and quotations in another script are no contradiction: more than half of the letters must be out of place.
    """
    counts = scripts(text)
    letters = sum(counts.values())
    if letters < 4 or primary(language) == UNDETERMINED:
        return None
    code = _likely_script(language)
    expected = _SCRIPTS.get(code or "")
    if expected is None:
        return None
    strange = {script: count for script, count in counts.items() if script not in expected}
    if 2 * sum(strange.values()) > letters:
        return f"most letters are {max(strange, key=lambda name: strange[name])}, not {code}"
    kana = sum(counts[name] for name in _KANA)
    if code in ("Hans", "Hant") and 10 * kana > letters:
        return "the text holds kana, which Chinese is not written in"
    if code == "Jpan" and not kana and counts["CJK"] >= 20:
        return "the text holds no kana, which every Japanese sentence does"
    return _latin_contradiction(text, language) if code == "Latn" else None


def _latin_contradiction(text: str, language: str) -> str | None:
    asked = _SAME.get(primary(language), primary(language))
    words = _words(text)
    hits = _hits(words)
    # Without a list for the language only English is recognised: neighbours would be taken for the language.
    best = max(hits if asked in _WORDS else ("en",), key=lambda name: hits[name])
    if best == asked or frozenset({best, asked}) in _NEAR:
        return None
    listed = asked in _WORDS
    distinct = len(_WORDS[best] & set(words))
    enough = hits[best] >= (3 if listed else 5) and distinct >= (2 if listed else 4)
    return f"its words are those of {best}" if enough and hits[best] > 2 * hits.get(asked, 0) + 1 else None


def _words(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(text[:20_000]))


def _hits(words: Counter[str]) -> dict[str, int]:
    return {name: sum(words[word] for word in known) for name, known in _WORDS.items()}


def guess(text: str) -> str | None:
    """Return the language of a text where script or frequent words tell it for certain, else None."""
    counts = scripts(text)
    letters = sum(counts.values())
    if letters < 4:
        return None
    if 10 * sum(counts[name] for name in _KANA) > letters:
        return "ja"
    for script, language in (("HANGUL", "ko"), ("CJK", "zh"), ("THAI", "th"), ("GREEK", "el"), ("HEBREW", "he")):
        if 2 * counts[script] > letters:
            return language
    if 2 * counts["LATIN"] <= letters:
        return None
    ordered = sorted(_hits(_words(text)).items(), key=lambda item: -item[1])
    (best, most), (_, next_most) = ordered[0], ordered[1]
    return best if most >= 3 and most > 2 * next_most else None
