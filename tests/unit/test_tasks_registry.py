"""A task is one file: what a new one needs of the rest of the product is nothing."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from captions.config.environment import IntakeSettings
from captions.config.policy import load
from captions.inference.merging import joined
from captions.routing import policy_check, routes
from captions.tasks import TASKS, Ask, Heard, kinds, prompt, read, registry, repair

PALETTE = """
from typing import Annotated, ClassVar

from pydantic import Field

from captions.tasks.answer_schema import Answer, Shape, Share, Text, list_of
from captions.tasks.registry import PICTURES, SEEN_ONLY, Task


class Colour(Shape):
    name: Text = Field("", description="what it is called")
    share: Share = Field(None, description="from 0 to 1, of the picture")


class PaletteAnswer(Answer):
    main: ClassVar[str] = "summary"
    summary: Text = Field("", description="how the colours go together")
    colours: Annotated[tuple[Colour, ...], list_of(Colour)] = Field(())


def read(answer, draft):
    if not answer.summary and not answer.colours:
        draft.fail("empty", "No colour was named.")
        return
    draft.text = draft.plain(answer.summary)
    draft.written = [draft.text]
    if sum(colour.share or 0.0 for colour in answer.colours) > 1.05:
        draft.doubt("shares", "The shares add up to more than the picture.", repairable=True, weight=0.3)
    draft.data = {"colours": [colour.model_dump() for colour in answer.colours]}


TASK = Task(
    name="palette", kinds=PICTURES, needs="image", max_tokens=300, shape=PaletteAnswer, role="You name colours.",
    rules=("Name the five colours that cover most of the picture.", SEEN_ONLY), request="Which colours are these?",
    read=read,
)
"""
ROOT = Path(__file__).parents[2]
SETTINGS = IntakeSettings(
    captions_table="c", fingerprints_table="f", uploads_queue_url="u", image_queue_url="i", audio_queue_url="a",
    event_bus_name="b",
)  # fmt: skip


@pytest.fixture
def _palette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "palette.py").write_text(PALETTE, encoding="utf-8")
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    registry.names.cache_clear()
    yield
    monkeypatch.undo()
    registry.names.cache_clear()
    sys.modules.pop("captions.tasks.kinds.palette", None)


@pytest.mark.usefixtures("_palette")
def test_a_task_that_is_one_file_is_routed_asked_read_checked_and_merged() -> None:
    policy = load("[tasks.palette]\ntier = 'hard'", tasks=TASKS)
    policy_check.check(policy)
    route = routes.route("a.jpg", "image", policy, SETTINGS, metadata={"caption-task": "palette"})
    assert route is not None
    assert policy.tier("a.jpg", "image", "palette", None) == "hard"

    sent = prompt(route.ask)
    assert sent.instructions.startswith("You name colours.\n- Name the five colours")
    assert '"colours": [{"name": "what it is called"' in sent.instructions
    assert sent.response_format is not None
    assert sent.response_format["json_schema"]["name"] == "palette"
    assert (sent.max_tokens, sent.text) == (300, "Which colours are these?")

    colours = [{"name": "navy", "share": "60 %"}, {"name": "rust", "share": 0.6}]
    reading = read(route.ask, json.dumps({"summary": "This picture shows navy and rust.", "colours": colours}))
    assert reading.output is not None
    assert [problem.code for problem in reading.problems] == ["lead_in", "shares"]
    assert reading.output.text == "Navy and rust."
    assert reading.output.data == {"colours": [{"name": "navy", "share": 0.6}, {"name": "rust", "share": 0.6}]}
    assert "The shares add up" in repair(route.ask, "x", reading.problems).text

    nothing = read(route.ask, "{}")
    assert (nothing.output, [problem.code for problem in nothing.problems]) == (None, ["empty"])

    both = joined("palette", [Heard(0.0, 1.0, reading.output), Heard(1.0, 2.0, reading.output)])
    assert both.data["colours"] == reading.output.data["colours"]


def test_without_its_file_there_is_no_such_task() -> None:
    assert "palette" not in TASKS
    with pytest.raises(ValueError, match="there is no task 'palette'"):
        Ask(task="palette")


@pytest.mark.parametrize("name", TASKS)
def test_a_file_has_its_tasks_name_and_the_readers_field_is_one_of_the_shape(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.shape.main in task.shape.model_fields
    assert task.kinds <= {"image", "animation", "document", "audio", "video"}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_its_row_in_the_documentation(name: str) -> None:
    shared = "identical media only" if TASKS[name].exact_only else "yes"
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert [row.endswith(f"| {shared} |") for row in rows] == [True], (
        f"docs/tasks.md: the table lacks a row that begins with `{name}` and ends with '{shared}'"
    )


def test_the_console_offers_every_task() -> None:
    gallery = (ROOT / "console" / "src" / "pages" / "gallery.js").read_text(encoding="utf-8")
    offered = re.search(r"const TASKS = \[(.*)\]", gallery)
    assert offered is not None
    assert set(re.findall(r"'(\w+)'", offered[1])) == set(TASKS), "TASKS of console/src/pages/gallery.js"


def test_to_know_what_is_asked_loads_that_task_alone_and_nothing_that_reads_answers() -> None:
    program = (
        "import sys\n"
        "from captions.tasks import TASKS, Ask\n"
        "assert 'music' in TASKS\n"
        "assert not any(name.startswith('captions.tasks.kinds.') for name in sys.modules)\n"
        "Ask(task='caption').identity\n"
        "print(*sorted(name for name in sys.modules if name.startswith('captions.tasks.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("captions.tasks.kinds.")} == {"captions.tasks.kinds.caption"}
    assert not loaded & {f"captions.tasks.{name}" for name in ("reader", "checks", "unwrapping", "result")}
