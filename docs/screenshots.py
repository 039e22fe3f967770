"""Take the README's pictures of the console: the demo's media on a local stack, in the machine's own Chromium.

make screenshots
"""

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from captions_cli.demo_uploads import uploads
from captions_cli.local import LocalStack
from captions_cli.local.options import ModelOptions

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import browsing  # noqa: E402 - of the tests, which are no package

OUT = ROOT / "docs" / "images"
COPIES = ("osprey-half.jpg", "osprey.webp", "colosseum-turned.jpg", "copies/", "web/", "empty.jpg")
"""Of the demo's uploads, what would show one picture again and again."""
LAST = ("cityscape.jpg", "casa-mila.heic", "tea gardens (été) #1.jpg", "colosseum.jpg", "coffee.jpg", "chelsea.jpg",
        "teddy-bear.jpg", "osprey.jpg")  # fmt: skip
"""What ends last stands first."""
WORDS = "An osprey on a bare branch, green all around."
WAIT_S = 180.0


def main() -> None:
    """Write docs/images."""
    OUT.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalStack(
            ROOT / "template.yaml",
            state_dir=Path(directory),
            model=ModelOptions(latency_scale=0.02, arguments=("--eyes",)),
            parameters={"ImageModels": "GPT-4o,Qwen/Qwen3-VL-32B-Instruct"},
            serve_api=True,
        ) as stack,
        browsing() as browser,
    ):
        assert stack.api is not None
        context = browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=1.5)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(f"{stack.api.url}/?token={stack.api.token}")
        planned = {upload.key: upload.body for upload in uploads() if not upload.key.startswith(COPIES)}
        planned |= {path.name: path.read_bytes() for path in (ROOT / "tests" / "media" / "photos").glob("*.jpg")}
        for keys in ([key for key in planned if key not in LAST], *([key] for key in LAST)):
            for key in keys:
                stack.client("s3").put_object(Bucket=stack.outputs["MediaBucketName"], Key=key, Body=planned[key])
            _ended(page, keys)
        page.reload()
        page.wait_for_selector("a.card img")
        page.wait_for_load_state("networkidle")
        _keep(page, "gallery")
        _review(page)


def _ended(page: Any, keys: Any) -> None:
    asked = "async () => (await (await fetch('v1/assets?limit=100')).json()).items"
    deadline = time.monotonic() + WAIT_S
    while not set(keys) <= {item["key"] for item in page.evaluate(asked) if item["completed_at"]}:
        if time.monotonic() > deadline:
            sys.exit("the demo's uploads did not end in time")
        time.sleep(0.5)


def _review(page: Any) -> None:
    page.evaluate("location.hash = '#/review'")
    while "osprey" not in page.locator(".judging .name").text_content():
        page.keyboard.press("j")
    page.keyboard.press("e")
    page.locator(".editor textarea").fill(WORDS)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".difference")
    page.locator(".toast button").click()
    page.wait_for_load_state("networkidle")
    _keep(page, "review")


def _keep(page: Any, name: str) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(OUT / f"{name}.webp", quality=72, method=6)


if __name__ == "__main__":
    main()
