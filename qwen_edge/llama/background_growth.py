"""Builds a larger context in the background, so that no stream stalls when the KV cache grows.

Most of the time of a growth is spent by the kernel, which finds and clears hundreds of megabytes: a second or more.
Here a thread of low priority waits for that; it takes a tenth of the machine from the decoding threads. The engine's
thread then only copies the cells in use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from qwen_edge.device.host.cpu import lower_priority
from qwen_edge.llama.context import Context

_PAGE = 4096


class BackgroundGrowth:
    """One context under construction; its thread starts with the constructor. Used by the engine's thread."""

    def __init__(
        self, make: Callable[[], Context | None], has_memory: Callable[[int], bool], room: int, held: int, most: int
    ) -> None:
        """`make` builds the context, of `room` cells, or returns None if memory is short. `has_memory` tells whether
        that many bytes are available. Both are called in the new thread. `held`: bytes that a copy of the cells would
        take now; `most`: the most that it may take when the context is ready. Raises MemoryError, or RuntimeError if
        the thread cannot start."""
        self.context: Context | None = None
        self.room = room
        self.buffer = np.empty(most, np.uint8)
        self._create, self._has_memory, self._held = make, has_memory, held
        self._thread = threading.Thread(target=self._make, name="successor", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join()

    def discard(self) -> None:
        """Wait until the context is built, and free it."""
        self.wait()
        if self.context:
            self.context.close()

    def _make(self) -> None:
        lower_priority()
        context = self._create()
        if context and not self._has_memory(self._held):  # the kernel might kill the engine during the copy
            context.close()

            return
        self.buffer[: self._held : _PAGE] = 0  # the kernel allocates the pages now, not during the copy

        self.context = context
