"""The command line: `qwen-edge <verb>`, one file a verb, each imported only when it is asked for."""

from __future__ import annotations

import importlib
import io
import sys
from importlib.metadata import version
from typing import Any

import click

from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import clean

_VERBS = ("advise", "bench", "cache", "convert", "doctor", "serve", "status", "tune")


class _Verbs(click.Group):
    """Finds `qwen_edge.cli.<verb>.command`; a verb's imports cost nothing to the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"qwen_edge.cli.{cmd_name}").command
        return command


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("qwen-edge"), prog_name="qwen-edge")
def _cli() -> None:
    """A small language model that lives on your device."""


def main(*arguments: Any) -> None:
    """Run one command. A user's mistake is one line on stderr and an exit code (see errors.py); Ctrl-C is 130; bugs
    show whole."""
    try:
        _cli.main(args=list(arguments) or None, prog_name="qwen-edge", standalone_mode=False)
    except UserError as error:
        sys.exit(_complain(str(error), error.exit_code))
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(clean(shown.getvalue()), err=True, nl=False)  # it repeats what was typed
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_complain("Interrupted.", 130))


def _complain(sentence: str, code: int) -> int:
    click.echo(f"qwen-edge: {clean(sentence)}", err=True)  # it may repeat what a server or a file says
    return code
