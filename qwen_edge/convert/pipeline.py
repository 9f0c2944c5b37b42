"""The stages of a conversion: fetch, write the unquantized GGUF file, measure importance, quantize, check, publish.

Each stage leaves its file in `<output>.work/` and an entry in a journal there, so that an interrupted conversion
continues at the stage it was in. The output file appears by one rename after all checks. A conversion that fails leaves
nothing behind; an interrupted one leaves the work folder.
"""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qwen_edge.convert.architecture import name_tensors, read_architecture
from qwen_edge.convert.checkpoint import open_checkpoint
from qwen_edge.convert.generation import read_sampling
from qwen_edge.convert.gguf_file import Plan, write_gguf
from qwen_edge.convert.hub import Source, description_files, fetch
from qwen_edge.convert.importance import Text, measure_importance, tokens_read
from qwen_edge.convert.manifest import (
    FORMAT,
    Imatrix,
    Input,
    Kept,
    Manifest,
    encode_manifest,
    manifest_path,
    read_manifest,
)
from qwen_edge.convert.quantize import Recipe, quantize, quantized_bytes
from qwen_edge.convert.safetensors import same_bytes, take_rows
from qwen_edge.convert.template_check import check_chat_template
from qwen_edge.convert.tensor_table import read_tensor_table
from qwen_edge.convert.tokenizer import read_tokenizer
from qwen_edge.convert.trim import Trim, choose_rows, trim_tokenizer
from qwen_edge.convert.worker import run_worker
from qwen_edge.convert.workspace import Journal, check_room, work_folder
from qwen_edge.core import atomic_file
from qwen_edge.core.checksum import sha256
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import Progress


@dataclass(frozen=True)
class Job:
    """A requested conversion. `file_type` is one of TYPES; `head` is one of HEADS, or None for the type's own. `text`:
    what to measure an importance matrix with, if wanted. The vocabulary is cut to `languages` (LANGUAGES), if there are
    any, and to at most `vocabulary` tokens. Without `output` the file goes into the folder `models`, named after the
    model and `kind`."""

    source: str
    file_type: str
    models: Path
    output: Path | None = None
    revision: str | None = None
    threads: int = 2
    force: bool = False
    head: str | None = None
    text: Text | None = None
    languages: Sequence[str] = ()
    vocabulary: int | None = None

    @property
    def kind(self) -> str:
        """Languages, vocabulary, type, head and imatrix as in the name of the file."""
        rows = [str(self.vocabulary)] if self.vocabulary else []
        head = ["head", self.head] if self.head else []
        imatrix = ["imatrix"] if self.text else []
        return "-".join([*self.languages, *rows, self.file_type, *head, *imatrix])


def convert(job: Job, progress: Progress) -> Path:
    """Convert; return the path of the file. Raises ConversionError (nothing is left) and KeyboardInterrupt (resumable).

    Runs in the caller's thread; llama.cpp runs in worker processes.
    """
    source = fetch(job.source, job.revision, progress)
    try:
        plan = make_plan(source, job.languages, job.vocabulary)
        abilities = check_chat_template(source.folder, plan.tokenizer)
        fingerprint = _fingerprint(source, plan, job.kind, *([job.text.sha256] if job.text else []))
        output = _output(job, f"{plan.name.lower()}-{job.kind.lower()}.gguf")
    except OSError as error:
        raise ConversionError(
            f"{error.filename or source.folder} cannot be read: {error.strerror or error}. Fix that, and try again."
        ) from error
    for note in plan.notes:
        progress.say(f"note: {note}")
    if cut := plan.trim:
        progress.say(f"vocabulary: {cut.tokens:,} of {cut.of:,} tokens kept, for {', '.join(cut.languages)}")
    known = read_manifest(output)
    if known and known.fingerprint == fingerprint and _intact(output, known) and not job.force:
        progress.say(f"{output} is up to date")
        return output
    progress.say(f"chat template: {abilities}")
    with work_folder(output) as work:
        check_room(work, plan.total_bytes + quantized_bytes(plan, job.file_type))
        made = _run_stages(job, source, plan, fingerprint, work, progress)
        manifest = _manifest(job, source, plan, fingerprint, made, output.name)
        _publish(made.file, output, manifest)
    _report(output, manifest, progress)
    return output


def _output(job: Job, name: str) -> Path:
    if job.output is None:
        return job.models / name
    return job.output / name if job.output.is_dir() else job.output


def make_plan(source: Source, languages: Sequence[str] = (), vocabulary: int | None = None) -> Plan:
    """Read and check everything but the weights; cut the vocabulary, if there are languages. Raises ConversionError."""
    checkpoint = open_checkpoint(source.folder)
    arch = read_architecture(checkpoint.config, str(source.folder / "config.json"))
    tensors = name_tensors(checkpoint, arch)
    head = tensors.get("output.weight")
    if arch.tied_head and head and same_bytes(head, tensors["token_embd.weight"]):
        # Qwen3-0.6B stores its tied head a second time. Without a head llama.cpp uses the embedding, so dropping the
        # copy changes no answer and saves a fifth of the memory.
        del tensors["output.weight"]
    tokenizer = read_tokenizer(checkpoint, arch.vocabulary)
    plan = Plan(source.name, checkpoint, arch, tokenizer, tensors, read_sampling(checkpoint))
    return _trimmed(plan, choose_rows(tokenizer, languages, vocabulary)) if languages else plan


def _trimmed(plan: Plan, trim: Trim) -> Plan:
    tables = {name: plan.tensors[name] for name in ("token_embd.weight", "output.weight") if name in plan.tensors}
    return replace(
        plan,
        architecture=replace(plan.architecture, vocabulary=len(trim.rows)),
        tokenizer=trim_tokenizer(plan.tokenizer, trim),
        tensors={**plan.tensors, **{name: take_rows(table, trim.rows) for name, table in tables.items()}},
        trim=trim,
    )


def _inputs(source: Source, plan: Plan) -> list[Path]:
    """The files that the conversion reads; other files in the folder do not count."""
    return sorted([*plan.checkpoint.weight_files, *description_files(source.folder)])


def _fingerprint(source: Source, plan: Plan, *options: str) -> str:
    """A digest that changes when an option, an input file or a tool changes."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _inputs(source, plan)]
    return hashlib.sha256(repr((source.name, *options, sorted(_tools().items()), stats)).encode()).hexdigest()


def _tools() -> dict[str, str]:
    return {name: version(name) for name in ("qwen-edge", "llama-cpp-python", "gguf")}


@dataclass(frozen=True)
class _Made:
    """A quantized file that was checked, and what the stages found out about it."""

    file: Path
    sha256: str
    inputs: tuple[Input, ...]
    tools: dict[str, str]
    checks: dict[str, Any]
    imatrix: Imatrix | None
    seconds: dict[str, float]


def _run_stages(job: Job, source: Source, plan: Plan, fingerprint: str, work: Path, progress: Progress) -> _Made:
    """All stages up to a checked file in the work folder. Stages that the journal lists as done are skipped."""
    journal = Journal(work / "journal.json", fingerprint)
    quantized, imatrix = work / "quantized.gguf", work / "imatrix.npz"
    _write_and_quantize(job, plan, journal, quantized, imatrix, progress)
    what = "checking: every tensor is finite, the tokenizer round-trips, one decode"
    with journal.timed("check", quantized), progress.stage(what, quantized.stat().st_size) as advance:
        checked = run_worker(_check_task(plan, quantized), advance)
    with journal.timed("hash", quantized):
        *inputs, output = _checksums([*_inputs(source, plan), quantized], progress)
    measured = Imatrix(job.text.name, job.text.sha256, tokens_read(imatrix)) if job.text else None
    return _Made(quantized, output.sha256, tuple(inputs), checked["tools"], checked["seen"], measured, journal.seconds)


def _checksums(files: list[Path], progress: Progress) -> list[Input]:
    with progress.stage("checksums for the manifest", sum(file.stat().st_size for file in files)) as advance:
        return [Input(file.name, file.stat().st_size, sha256(file, advance)) for file in files]


def _write_and_quantize(
    job: Job, plan: Plan, journal: Journal, quantized: Path, imatrix: Path, progress: Progress
) -> None:
    """The stages that write files: those of the unquantized model, of the importance, and of the quantized model."""
    unquantized = quantized.with_name("unquantized.gguf")
    measured = journal.has("imatrix", imatrix) if job.text else True
    if measured and journal.has("quantize", quantized):
        return
    if not journal.has("write", unquantized):
        with journal.timed("write", unquantized):
            write_gguf(plan, unquantized, progress)
    if job.text and not measured:
        with journal.timed("imatrix", imatrix):
            measure_importance(job.text, unquantized, imatrix, threads=job.threads, progress=progress)
    with journal.timed("quantize", quantized):
        _quantize(job, plan, unquantized, quantized, imatrix if job.text else None, progress)
    unquantized.unlink(missing_ok=True)


def _manifest(job: Job, source: Source, plan: Plan, fingerprint: str, made: _Made, name: str) -> Manifest:
    """What is kept about the file, which will have this name."""
    table = read_tensor_table(made.file)
    return Manifest(
        format=FORMAT,
        file=name,
        type=job.file_type,
        bytes=made.file.stat().st_size,
        sha256=made.sha256,
        source=source.origin,
        revision=source.revision,
        fingerprint=fingerprint,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        tools={**_tools(), **made.tools, "python": platform.python_version(), "machine": platform.machine()},
        inputs=made.inputs,
        types=dict(Counter(row.type for row in table).most_common()),
        checks=made.checks,
        seconds={stage: round(seconds, 2) for stage, seconds in made.seconds.items()},
        tensors={row.name: f"{row.type} {'x'.join(map(str, row.shape))}" for row in table},
        vocabulary=Kept(tuple(plan.trim.languages), plan.trim.tokens, plan.trim.of) if plan.trim else None,
        imatrix=made.imatrix,
    )


def _quantize(
    job: Job, plan: Plan, unquantized: Path, quantized: Path, imatrix: Path | None, progress: Progress
) -> None:
    if job.file_type == plan.dtype:
        unquantized.replace(quantized)
        return
    recipe = Recipe(job.file_type, job.head)
    quantize(plan, unquantized, quantized, recipe, importance=imatrix, threads=job.threads, progress=progress)


def _check_task(plan: Plan, file: Path) -> dict[str, Any]:
    return {"do": "check", "file": str(file), "added": plan.tokenizer.added, "end_tokens": plan.tokenizer.end_tokens}


def _intact(output: Path, manifest: Manifest) -> bool:
    try:
        return output.stat().st_size == manifest.bytes and sha256(output) == manifest.sha256
    except OSError:  # missing or unreadable: converted again
        return False


def _publish(model: Path, output: Path, manifest: Manifest) -> None:
    """Manifest first, model last: a model that exists is complete and has its manifest. Survives a power cut."""
    atomic_file.replace(manifest_path(output), encode_manifest(manifest), durable=True)
    model.replace(output)
    atomic_file.sync(output.parent)


def _report(output: Path, manifest: Manifest, progress: Progress) -> None:
    mix = ", ".join(f"{count} {kind}" for kind, count in manifest.types.items())
    seconds = sum(manifest.seconds.values())
    progress.say(f"{output}: {manifest.bytes / 1e6:.1f} MB ({mix}), checked, in {seconds:.1f} s")
