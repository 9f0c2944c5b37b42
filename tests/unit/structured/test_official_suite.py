"""The official test suite of JSON Schema, turned into generation: what it calls invalid can never be an answer.

It is part of the source distribution of `jsonschema`, which the package index has; without it these are skipped.
"""

from __future__ import annotations

import json
import re
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
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.schema import check
from tests.unit.structured import vocabulary
from tests.unit.structured.test_answers import answer_of_noise

_FOLDER = "/json/tests/"
_DRAFTS = ["draft2020-12", "draft2019-09", "draft7"]  # their schemas are read as those of 2020-12, which differ little
_OPTIONAL = ["draft2020-12/optional", "draft2020-12/optional/format"]

# a format is held to a pattern, which knows neither leap years nor leap seconds; Rust's \S has one character more
_UNCAUGHT = re.compile(r"2021-02-29|.*:60(Z|[-+].*)|\ufeff", re.IGNORECASE)

Groups = dict[str, list[dict[str, Any]]]


@cache
def _compiler() -> Compiler:
    return vocabulary.compiler()


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    """The groups of cases, by folder of the suite: a schema, and instances that are valid or not."""
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
    found: Groups = {folder: [] for folder in (*_DRAFTS, *_OPTIONAL)}
    for where, group in _groups(archive):
        if where in found:
            found[where].append(group)
    return found


def _groups(archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with tarfile.open(archive) as files:
        for member in files:
            _, _, name = member.name.partition(_FOLDER)
            if name.endswith(".json") and (file := files.extractfile(member)):
                for group in json.load(file):
                    if isinstance(group["schema"], dict):
                        yield name.rpartition("/")[0], group


def _constraint(schema: dict[str, Any]) -> Constraint | None:
    """None if the schema is refused, or held to in part only."""
    try:
        if any(check(schema)):  # keywords and formats
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


@pytest.mark.parametrize(
    ("folder", "least"), [*((draft, 130) for draft in _DRAFTS), (_OPTIONAL[0], 20), (_OPTIONAL[1], 10)]
)
def test_no_invalid_instance_can_be_written_and_valid_ones_can(groups: Groups, folder: str, least: int) -> None:
    enforced = written = valid = 0
    for group in groups[folder]:
        for case in group["tests"]:
            if (constraint := _constraint(group["schema"])) is None:
                break
            can = _can_be_written(constraint, case["data"])
            assert case["valid"] or not can or _UNCAUGHT.fullmatch(str(case["data"])), (group["schema"], case["data"])
            written, valid = written + can, valid + case["valid"]
        else:
            enforced += 1
    # the others need a keyword that is refused by name; of a valid instance the keys may stand in another order
    assert enforced >= least
    assert written >= 0.9 * valid


@pytest.mark.parametrize(("folder", "least"), [(_DRAFTS[0], 300), (_DRAFTS[1], 300), (_OPTIONAL[1], 25)])
def test_answers_of_noise_fit_the_suite_s_schemas(groups: Groups, folder: str, least: int) -> None:
    finished = 0
    for group in groups[folder]:
        if _constraint(group["schema"]) is None:
            continue
        for seed in range(3):
            answer = answer_of_noise(group["schema"], seed)
            if answer is not None:
                finished += 1
                Draft202012Validator(group["schema"]).validate(json.loads(answer))
    assert finished >= least
