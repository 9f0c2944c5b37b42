"""A larger context, made beside the work, so that no stream stalls when the KV cache grows.

Most of a growth is the kernel finding and clearing hundreds of megabytes: a second or more. Here that is done by a
thread of low priority, which takes a tenth of the machine from the decoding threads; what is left is to copy what the
cache holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from qwen_edge.device.host.cpu import lower_priority
from qwen_edge.llama.context import Context

_PAGE = 4096


class BackgroundGrowth:
    """Begins to make a context when created. Created, asked and taken by the engine's thread."""

    def __init__(
        self, make: Callable[[], Context | None], is_there: Callable[[int], bool], room: int, held: int, most: int
    ) -> None:
        """`make` makes the context, of `room` cells, or returns nothing where memory is short; `is_there` tells whether
        so many bytes can be had. Both are called in a thread. `held` bytes would have to be copied now, and no more
        than `most` when it is there. Raises MemoryError, and RuntimeError where there can be no other thread."""
        self.context: Context | None = None
        self.room = room
        self.buffer = np.empty(most, np.uint8)
        self._create, self._is_there, self._held = make, is_there, held
        self._thread = threading.Thread(target=self._make, name="successor", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join()

    def discard(self) -> None:
        """It is not needed any more. Waits until it is made."""
        self.wait()
        if self.context:
            self.context.close()

    def _make(self) -> None:
        lower_priority()
        context = self._create()
        if context and not self._is_there(self._held):  # taken meanwhile: to touch it might get the engine killed
            context.close()
            return
        self.buffer[: self._held : _PAGE] = 0  # the kernel finds the memory now
        self.context = context
