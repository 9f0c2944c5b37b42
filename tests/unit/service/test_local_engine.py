"""What the service knows of its model."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from qwen_edge.core.errors import RequestError
from qwen_edge.renderer.handle import Renderer
from qwen_edge.service.local_engine import LocalEngine


def test_no_request_is_taken_before_it_is_known_what_the_template_can_do() -> None:
    """Else thinking that the settings switch off would be on, as for a model that cannot switch it."""
    engine = cast(Any, SimpleNamespace(model=object()))
    local = LocalEngine(engine, Renderer(), lambda _: None, most_pending=1, wait_seconds=1, answer_seconds=1)
    with pytest.raises(RequestError) as refused:
        _ = local.model
    assert (refused.value.kind, refused.value.retry_after) == ("unavailable", 1)
