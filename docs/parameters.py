"""Keeps the table of the template's parameters in docs/deployment.md.

python docs/parameters.py            write the table again
python docs/parameters.py --check    exit 1 when it is not what the template says
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "deployment.md"
BEGIN, END = "<!-- parameters -->\n", "<!-- end of parameters -->\n"


def table(template: dict[str, Any]) -> str:
    """Return one Markdown table for each of the template's parameter groups."""
    return "\n".join(_group(group, template["Parameters"]) for group in _groups(template))


def page_with(text: str, template: dict[str, Any]) -> str:
    """Return the page's text with its table as the template says.

    Raises ValueError when the marks around the table are not there.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the marks around the table of parameters")
    return f"{head}{BEGIN}{table(template)}{END}{tail}"


def _groups(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]


def _group(group: dict[str, Any], parameters: dict[str, Any]) -> str:
    rows = "".join(_row(name, parameters[name]) for name in group["Parameters"])
    return f"| {group['Label']['default']} | Default | |\n|---|---|---|\n{rows}"


def _row(name: str, parameter: dict[str, Any]) -> str:
    default = parameter.get("Default")
    shown = "required" if default is None else f"`{default}`" if default != "" else "empty"
    allowed = parameter.get("AllowedValues")
    choice = f" One of {', '.join(f'`{value}`' for value in allowed)}." if allowed else ""
    return f"| `{name}` | {shown} | {parameter['Description']}{choice} |\n"


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    wanted = page_with(text, yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8")))
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
