"""Pictures of every page for the documentation: of the same deployment and by the same steps as the browser tests.

Run as `python scripts/screenshots.py`: writes docs/images/NAME.png. Needs the extra 'dev' and Chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402 - the root comes first
from playwright.sync_api import sync_playwright  # noqa: E402

from tests.browser.looks import LOOKS, Look  # noqa: E402
from tests.browser.stage import Stage, stage  # noqa: E402

WIDTH = 1200
COLOURS = 128  # of a picture's palette: pages have few colours, and files stay small
LARGEST = 150_000  # bytes of a file
HOME = "/srv/shop"  # what pages show in the place of a temporary folder
RENAME = """([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}"""


def main() -> int:
    asked = options()
    chosen = [one for one in LOOKS if not asked.names or one.name in asked.names]
    asked.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coterie-pictures-")))
        os.environ["COTERIE_HOME"] = str(folder.absolute() / "home")
        made = stack.enter_context(stage(folder / "deployment"))
        driver = stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for look in chosen:
            content = small(picture(browser, made, look))
            (asked.output / f"{look.name}.png").write_bytes(content)
            print(f"{look.name}.png: {len(content):,} bytes", flush=True)
            if len(content) > LARGEST:
                sys.exit(f"{look.name}.png has more than {LARGEST:,} bytes; lower its height in tests/browser/looks.py")
        browser.close()
    return 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="pages to take; all by default")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    parser.add_argument("--folder", type=Path, help="keep runs and store here, to take pictures again at once")
    return parser.parse_args()


def picture(browser: Any, made: Stage, look: Look) -> bytes:
    """The page as it stands on a screen."""
    viewport = {"width": WIDTH, "height": look.height}
    scheme = "dark" if look.dark else "light"
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce", locale="en-GB")
    try:
        page = look.open(context.new_page(), made)
        page.evaluate(RENAME, [str(made.folder.absolute()), HOME])
        return bytes(page.screenshot(animations="disabled", caret="hide"))
    finally:
        context.close()


def small(content: bytes) -> bytes:
    """The same picture with a palette."""
    held = io.BytesIO()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
    return held.getvalue()


if __name__ == "__main__":
    sys.exit(main())
