"""The file of a drawing or a table that an option names: checked before anything is measured, written at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from qwen_edge.core.errors import UserError


def plot_option(text: str) -> Callable[[Any], Any]:
    """The option --plot FILE, with this help. A folder that is not there is told at once, not after minutes."""
    return click.option(
        "--plot", type=click.Path(path_type=Path, dir_okay=False), callback=_checked, metavar="FILE", help=text
    )


def write_file(file: Path, text: str) -> None:
    """Write the text as it stands. The file is written in place, not replaced: it may be a device or a link. Raises
    UserError if it cannot be written."""
    try:
        file.write_text(text, encoding="utf-8", newline="")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        words = getattr(error, "strerror", None) or error
        raise UserError(f"{file} cannot be written: {words}. Choose another file.") from None


def _checked(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    if file and not file.parent.is_dir():
        raise click.BadParameter(f"{file.parent} is not a folder.")
    return file
