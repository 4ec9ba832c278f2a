"""MkDocs hook: adds the generated reference to the pages, and puts all pages in reading order."""

from __future__ import annotations

from typing import Any

import reference  # beside this file: mkdocs looks there while it loads a hook
from mkdocs.structure.files import File, Files

SECTIONS = {"tutorial": "Tutorial", "how-to": "How-to", "reference": "Reference", "explanation": "Explanation"}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, then the navigation over all of them."""
    for path, content in reference.pages().items():
        files.append(File.generated(config, path, content=content))
    config.nav = _navigation([file.src_uri for file in files.documentation_pages()])
    return files


def _navigation(pages: list[str]) -> list[Any]:
    """The start page, then one section per folder: its index first, the others by file name."""
    navigation: list[Any] = [page for page in pages if page == "index.md"]
    for folder, title in SECTIONS.items():
        inside = sorted(
            (p for p in pages if p.startswith(f"{folder}/")), key=lambda p: (not p.endswith("/index.md"), p)
        )
        if inside:
            navigation.append({title: inside})
    return navigation
