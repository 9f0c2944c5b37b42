"""`qwen-edge convert`: a checkpoint in, a checked GGUF file with its manifest out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qwen_edge.cli.flags import setting
from qwen_edge.config.paths import hand_over, models_folder, must_be_text
from qwen_edge.convert.hub import DEFAULT_SOURCE
from qwen_edge.convert.manifest import manifest_path
from qwen_edge.convert.pipeline import Job, convert
from qwen_edge.convert.progress import Progress
from qwen_edge.convert.quantize import DEFAULT_TYPE, HEADS, TYPES, check_head, check_type
from qwen_edge.device.host.cpu import usable_cores


@click.command("convert", short_help="Make a quantized GGUF file of a checkpoint.")
@click.argument("source", default=DEFAULT_SOURCE)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to make, or a folder to put it into.")
@click.option("--type", "file_type", default=DEFAULT_TYPE, show_default=True, help=f"One of {', '.join(TYPES)}.")
@click.option("--head", help=f"Type of the output head: {', '.join(HEADS)}.  [default: the type's own]")
@click.option("--revision", help="Branch, tag or commit of a Hub repository; the default model's is pinned.")
@click.option(
    "--threads", type=setting("engine.threads"), help="Threads to quantize with.  [default: one for each physical core]"
)
@click.option("--force", is_flag=True, help="Convert even if the file is there and up to date.")
def command(source: str, output: Path | None, file_type: str, head: str | None, **options: Any) -> None:
    """Convert SOURCE, a Hub repository or a local checkpoint folder, to a quantized GGUF file.

    SOURCE is Qwen/Qwen3-0.6B if not given. Interrupted, the same command goes on where it stopped.
    """
    must_be_text(Path(source), "The checkpoint")  # or a name at the Hub
    must_be_text(output or models_folder(), "The output")
    job = Job(
        source=source,
        file_type=check_type(file_type),
        models=models_folder(),
        output=output,
        revision=options["revision"],
        threads=min(options["threads"] or usable_cores(), os.cpu_count() or 1),  # more only take memory
        force=options["force"],
        head=check_head(head, check_type(file_type)),
    )
    progress = Progress(Console(stderr=False))
    try:
        output = convert(job, progress)
        for made in (output, manifest_path(output)):
            hand_over(made)
    except KeyboardInterrupt:
        progress.say("Interrupted. The same command goes on from here.")
        raise
