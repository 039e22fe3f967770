"""What is checked before a change is merged is what the README tells a user to do, as a user would do it."""

import re

from support.template import ROOT

SCRIPT = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_commands_run_word_for_word() -> None:
    first_screen = README.partition("\n## ")[0]
    commands = re.findall(r"^    (make [\w ]+?)\s+#", first_screen, re.MULTILINE)
    assert commands == ["make demo", "make test"]
    lines = SCRIPT.splitlines()
    assert [line for line in lines if line in commands] == commands


def test_they_run_in_a_fresh_clone_with_a_cleared_environment_and_an_empty_home() -> None:
    assert re.search(r"^  git clone --quiet ", SCRIPT, re.MULTILINE)
    (cleared,) = re.findall(r"env -i (.+?) \\\n\s+bash ", SCRIPT)
    assert {setting.partition("=")[0] for setting in cleared.split()} == {
        "HOME", "PATH", "LANG", "CI", "CAPTIONS_FRESH_CLONE",
    }  # fmt: skip
    assert SCRIPT.index("env -i") < SCRIPT.index("\nmake demo\n")
