"""The machine's Chromium, driven by Playwright, and what axe finds on a page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
AXE = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
SITE = ROOT / "functions" / "api" / "console" / "index.html"
SCREENSHOTS = ROOT / ".captions" / "console"
WAIT_MS = 60_000
"""How long a condition is waited for: the machine may be busy with other tests."""

# No process for a page that nobody has asked for yet, and none of what a graphics card would do, in software.
_THRIFT = ("--disable-features=SpareRendererForSitePerProcess", "--disable-gpu")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def _needed(there: bool, why: str) -> None:
    """Skip where something is missing; under CI, which installs it all, fail."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


def chromium() -> str:
    """The path of Chromium; skips the test where it, Playwright or the console is not there."""
    _needed(SITE.is_file() and AXE.is_file(), "the console is not built: run `make console` and `make test`")
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        _needed(False, "Playwright is not installed: `make test` does that")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    _needed(path is not None, "there is no Chromium (on Debian: apt-get install chromium)")
    assert path is not None
    return path


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser that is ended with the block."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not start for root, and a container's /dev/shm is small.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=[*root, "--disable-dev-shm-usage", *_THRIFT])
        try:
            yield browser
        finally:
            browser.close()


def complaints(page: Any) -> list[str]:
    """A list that fills with what the browser complains of: errors, refused contents, failed requests."""
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def findings(page: Any) -> list[str]:
    """What axe finds on a page as it is now, one line each."""
    # Through the protocol, which a page's policy does not concern; once, since axe is twice as fast when it runs again.
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    run = "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})"
    violations = page.evaluate(run, list(RULES))["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for violation in violations
        for node in violation["nodes"]
    ]


def keep_screenshot(page: Any, name: str) -> None:
    """Keep what is seen under .captions/console; to write a PNG takes twice as long."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.jpg", type="jpeg", quality=80)
