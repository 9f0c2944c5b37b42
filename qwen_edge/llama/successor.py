"""A larger context, made beside the work, so that no stream stalls when the KV cache grows.

Most of a growth is the kernel finding and clearing hundreds of megabytes: a second or more. Here that is done by a
thread of low priority, which takes a tenth of the machine from the decoding threads; what is left is to copy what the
cache holds.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import numpy as np

from qwen_edge.llama.bindings import C

_NICE = 10  # a tenth of the weight of the decoding threads
_PAGE = 4096


class Successor:
    """Begins to make a context when created. Created, asked and taken by the engine's thread."""

    def __init__(self, model: Any, params: Any, held: int, most: int) -> None:
        """`model` is llama.cpp's, `params` are the new context's and are kept; `held` bytes would have to be copied
        now, and no more than `most` when it is there."""
        self.context: Any = None
        self.room = int(params.n_ctx)
        self.buffer = np.empty(most, np.uint8)
        self._model, self._params, self._held = model, params, held
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
            C.llama_free(self.context)

    def _make(self) -> None:
        if sys.platform == "linux":  # elsewhere this would be the priority of the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
        self.buffer[: self._held : _PAGE] = 0  # the kernel finds the memory now
        self.context = C.llama_init_from_model(self._model, self._params)
