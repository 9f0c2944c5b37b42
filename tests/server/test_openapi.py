"""The running daemon does what /openapi.json says: only documented statuses, content types and bodies.

Schemathesis makes the requests from the description: valid ones, and ones that break it."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from qwen_edge.auth.keys import Keys

KEYS = Keys({"secret": "one"})
HEADERS = {"x-api-key": "secret"}
# a shape that fits any JSON leaves the fake model no end but these
BOUNDED = {"context": 512, "stops_loops": True}


def no_failure_of_ours(_context: object, response: object, _case: Case) -> None:
    """500 is documented, and still never the answer to a request. 529 is Anthropic's 503."""
    assert response.status_code < 500 or response.status_code in (503, 529), response.text


CHECKS = [
    no_failure_of_ours,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


class Explorer:
    """Sends requests that are made from the description, and counts the answers by path and status."""

    def __init__(self, address: str, number: int = 1) -> None:
        """`number`: of the random sequence."""
        self.answers = Counter[tuple[str, int]]()
        self.number = number
        self._session = requests.Session()
        self._session.headers.update(HEADERS)
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=HEADERS)
        self.operations = [result.ok() for result in schema.get_all_operations()]

    def explore(self, operation: APIOperation, mode: GenerationMode, examples: int) -> None:
        """So many requests at most: an operation without parameters has one."""

        @seed(self.number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # to shrink a body of a hundred parameters takes minutes
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Case) -> None:
            response = case.call(session=self._session, timeout=60)
            self.answers[operation.path, response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        send()

    @property
    def requests(self) -> int:
        return sum(self.answers.values())

    def explore_all(self, examples: int, *, only_bodies: bool = False) -> None:
        """So many requests of each kind to each operation, or to each that reads a body."""
        for operation in self.operations:
            if only_bodies and not operation.body:
                continue
            modes = [GenerationMode.POSITIVE]
            if operation.body or list(operation.path_parameters):
                modes.append(GenerationMode.NEGATIVE)
            for mode in modes:
                self.explore(operation, mode, examples)


async def test_answers_are_as_described(serve):
    served = await serve(keys=KEYS, **BOUNDED)
    explorer = await asyncio.to_thread(Explorer, served.address)
    await asyncio.to_thread(explorer.explore_all, 15)
    assert {path for path, _ in explorer.answers} == {operation.path for operation in explorer.operations}
    assert explorer.answers["/v1/chat/completions", 200]


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_thousands_of_answers_are_as_described(serve, capsys):
    """5,000 requests; the paths that read a body get most of them."""
    served = await serve(keys=KEYS, **BOUNDED)
    explorer = await asyncio.to_thread(Explorer, served.address)
    await asyncio.to_thread(explorer.explore_all, 100)
    while explorer.requests < 5000:
        explorer.number += 1
        await asyncio.to_thread(explorer.explore_all, 250, only_bodies=True)
    with capsys.disabled():
        counts = [f"{path} {status}: {count}" for (path, status), count in sorted(explorer.answers.items())]
        sys.stdout.write("\n".join(["", f"{explorer.requests} requests", *counts, ""]))
