"""Shows how far an engine is with loading: in a line that changes on a terminal, in plain lines in a log."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from qwen_edge.core.progress import MEGABYTES, SHARE, Progress, Stage, Unit
from qwen_edge.protocol.loading import Doing
from qwen_edge.protocol.messages import Loading, Ready


class LoadDisplay:
    """Gets the messages of one engine after another. Used on the daemon's event loop."""

    def __init__(self, progress: Progress, model: Path) -> None:
        self._progress, self._model = progress, model
        self._doing: Doing | None = None
        self._stage = Stage()
        self._shown = ExitStack()

    def __call__(self, message: Loading | Ready | None) -> None:
        """`message` None: the engine has ended."""
        if not isinstance(message, Loading):
            self._end(finished=message is not None)
            return
        if message.doing != self._doing:
            self._end(finished=True)
            title, total, unit = self._words(message.doing)
            self._doing = message.doing
            shown = self._progress.stage(title, total, unit, done=message.fraction * total)
            self._stage = self._shown.enter_context(shown)
        self._stage.reach(message.fraction * self._stage.total)

    def _end(self, *, finished: bool) -> None:
        """The work that is shown is finished, or given up."""
        self._stage.finished = finished
        self._shown.close()
        self._doing = None

    def _words(self, doing: Doing) -> tuple[str, float, Unit]:
        """The title of the work, how much there is of it, and in what it is counted."""
        if doing == "load":
            title = f"loading {self._model.name}"
            try:
                return title, float(self._model.stat().st_size), MEGABYTES
            except OSError:  # it was moved since llama.cpp opened it
                return title, 1.0, SHARE
        if doing == "measure":
            return "measuring what is fastest on this device, for the first start with this model", 1.0, SHARE
        return "opening the folder of remembered conversations", 0.0, SHARE
