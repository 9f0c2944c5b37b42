"""`qwen-edge convert`: converts a checkpoint to a checked GGUF file with a manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qwen_edge.cli.flags import setting
from qwen_edge.config.paths import hand_over, models_folder, must_be_text
from qwen_edge.convert.hub import DEFAULT_SOURCE
from qwen_edge.convert.importance import Text, read_text
from qwen_edge.convert.languages import check_languages
from qwen_edge.convert.manifest import manifest_path
from qwen_edge.convert.pipeline import Job, convert
from qwen_edge.convert.quantize import DEFAULT_TYPE, HEADS, TYPES, check_head, check_imatrix, check_type
from qwen_edge.core.progress import on_console
from qwen_edge.device.host.cpu import usable_cores


@click.command("convert", short_help="Convert a checkpoint to a quantized GGUF file.")
@click.argument("source", default=DEFAULT_SOURCE)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write, or folder to write it to.")
@click.option(
    "--type", "file_type", default=DEFAULT_TYPE, show_default=True, help=f"Quantization type: {', '.join(TYPES)}."
)
@click.option("--head", help=f"Type of the output head: {', '.join(HEADS)}.  [default: that of --type]")
@click.option(
    "--languages",
    help="Cut the vocabulary to these languages, such as zh,en: a smaller and quicker model.  [default: all]",
)
@click.option(
    "--vocabulary",
    type=click.IntRange(1, 1 << 20),
    help="With --languages: keep at most so many tokens, the most common ones.  [default: all of these languages]",
)
@click.option(
    "--imatrix",
    is_flag=False,
    flag_value="",
    metavar="[TEXT]",
    help="Round weights by their importance for this text file, or for our own text.  [default: all weights alike]",
)
@click.option(
    "--revision",
    help="Branch, tag or commit of a Hub repository.  [default: main; a fixed commit for the default model]",
)
@click.option(
    "--threads", type=setting("engine.threads"), help="Threads to quantize with.  [default: one for each physical core]"
)
@click.option("--force", is_flag=True, help="Convert even if the output is up to date.")
def command(source: str, output: Path | None, file_type: str, head: str | None, **options: Any) -> None:
    """Convert SOURCE, a Hub repository or a local checkpoint folder, to a quantized GGUF file.

    The default SOURCE is Qwen/Qwen3-0.6B. After an interruption, the same command continues where it stopped.
    """
    must_be_text(Path(source), "The checkpoint")  # or a name at the Hub
    must_be_text(output or models_folder(), "The output")
    job = Job(
        source=source,
        file_type=check_type(file_type),
        models=models_folder(),
        output=output,
        revision=options["revision"],
        threads=min(
            options["threads"] or usable_cores(), os.cpu_count() or 1
        ),  # further threads would only take memory
        force=options["force"],
        head=check_head(head, check_type(file_type)),
        languages=check_languages(options["languages"], options["vocabulary"]),
        vocabulary=options["vocabulary"],
        text=_text(options["imatrix"], check_type(file_type), check_head(head, check_type(file_type))),
    )
    progress = on_console(Console(stderr=False))
    try:
        output = convert(job, progress)
        for made in (output, manifest_path(output)):
            hand_over(made)
    except KeyboardInterrupt:
        progress.say("Interrupted. The same command continues from here.")
        raise


def _text(imatrix: str | None, file_type: str, head: str | None) -> Text | None:
    """The text of --imatrix, which is empty where no file is named."""
    if imatrix is None:
        return None
    check_imatrix(file_type, head)
    return read_text(must_be_text(Path(imatrix), "The text") if imatrix else None)
