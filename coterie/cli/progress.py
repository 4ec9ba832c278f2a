"""What a training says while it works, on stderr: the plan of work, the step it is at, notes and warnings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from coterie.cli.output import Output


class Listener:
    """Takes a training's events and shows them: a live line on a terminal, one line a step elsewhere.

    Events: ("step", text, done, total or None), ("estimate", sentence), ("cleaning", entries), ("note", text),
    ("warning", text).
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._live = Progress(*columns, console=out.notes, transient=True, disable=not out.notes.is_terminal)
        self._task: TaskID | None = None
        self._step = ""
        self._since = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish_step()
        self._live.stop()

    def __call__(self, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "step":
            self._advance(str(content["text"]), int(content.get("done") or 0), content.get("total"))
        elif kind == "estimate":
            self._say(Text(str(content["sentence"])))
        elif kind == "cleaning":
            self._show_cleaning(content["entries"])
        elif kind == "warning":
            self._out.warn(str(content["text"]))
        else:
            self._say(Text(str(content["text"]), style="dim"))

    def _advance(self, text: str, done: int, total: int | None) -> None:
        if text != self._step:
            self._finish_step()
            self._step, self._since = text, time.monotonic()
            if not self._out.notes.is_terminal:
                self._say(Text(f"{text} ..."))
            self._task = self._live.add_task(text, total=total)
        if self._task is not None:
            self._live.update(self._task, completed=done, total=total)

    def _finish_step(self) -> None:
        """On a terminal, leave a line of what was done and how long it took."""
        if self._task is None:
            return
        self._live.remove_task(self._task)
        if self._out.notes.is_terminal:
            took = time.monotonic() - self._since
            self._say(Text.assemble(("done ", "green"), self._step, (f"  {took:.1f} s", "dim")))
        self._task = None

    def _show_cleaning(self, entries: list[Mapping[str, Any]]) -> None:
        from coterie.report.tables import cleaning_table

        if any(entry.get("dropped") or entry.get("changed") for entry in entries):
            self._out.notes.print(cleaning_table(entries))

    def _say(self, text: Text) -> None:
        self._out.notes.print(text)
