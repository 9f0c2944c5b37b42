"""The official test suite of JSON Schema, turned into generation: what it calls invalid can never be an answer.

It is part of the source distribution of `jsonschema`, which the package index has; without it these are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.compiler import Compiler
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.schema import ShapeError, check
from tests.unit.structured import vocabulary
from tests.unit.structured.test_answers import answer_of_noise

_FOLDER = "/json/tests/draft2020-12/"


@cache
def _compiler() -> Compiler:
    return vocabulary.compiler()


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The groups of cases: a schema, and instances that are valid or not."""
    folder = tmp_path_factory.mktemp("suite")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        ":all:",
        "jsonschema",
    ]
    if subprocess.run([*command, "-d", str(folder)], check=False, capture_output=True, timeout=120).returncode:
        pytest.skip("the package index does not give the source of jsonschema")
    [archive] = folder.glob("*.tar.gz")
    return list(_groups(archive))


def _groups(archive: Path) -> Iterator[dict[str, Any]]:
    with tarfile.open(archive) as files:
        for member in files:
            where, _, name = member.name.partition(_FOLDER)
            if where and name and "/" not in name and (file := files.extractfile(member)):
                yield from (group for group in json.load(file) if isinstance(group["schema"], dict))


def _constraint(schema: dict[str, Any]) -> Constraint | None:
    """None if the schema is refused, or held to in part only."""
    try:
        if check(schema).keywords:
            return None
        return _compiler().compile(Shape("json_schema", json.dumps(schema)))
    except ShapeError:
        return None


def _can_be_written(constraint: Constraint, value: Any) -> bool:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for token in vocabulary.encode(text):
        if not constraint.agrees([token]):
            return False
        constraint.accept(token)
    return constraint.complete


def test_no_invalid_instance_can_be_written_and_valid_ones_can(groups: list[dict[str, Any]]) -> None:
    enforced = written = valid = 0
    for group in groups:
        for case in group["tests"]:
            if (constraint := _constraint(group["schema"])) is None:
                break
            can = _can_be_written(constraint, case["data"])
            assert case["valid"] or not can, (group["schema"], case["data"])
            written, valid = written + can, valid + case["valid"]
        else:
            enforced += 1
    # the others need a keyword that is refused by name; of a valid instance the keys may stand in another order
    assert enforced >= 150
    assert written >= 0.9 * valid


def test_answers_of_noise_fit_the_suite_s_schemas(groups: list[dict[str, Any]]) -> None:
    finished = 0
    for group in groups:
        if _constraint(group["schema"]) is None:
            continue
        for seed in range(3):
            answer = answer_of_noise(group["schema"], seed)
            if answer is not None:
                finished += 1
                Draft202012Validator(group["schema"]).validate(json.loads(answer))
    assert finished >= 300
