"""The command line: `qwen-edge <verb>`. One file a verb, imported only when that verb is run."""

from __future__ import annotations

import importlib
import io
import sys
from importlib.metadata import version
from typing import Any

import click

from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import clean

_VERBS = ("advise", "bench", "cache", "chat", "convert", "doctor", "rate", "serve", "status", "tune")


class _Verbs(click.Group):
    """Loads `qwen_edge.cli.<verb>.command` on demand, so that no verb pays for the imports of another."""

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
    """Run a small language model on this device."""


def main(*arguments: Any) -> None:
    """Run one command. A user's mistake gives one line on stderr and an exit code (see core/errors.py); Ctrl-C gives
    130; a bug gives a traceback."""
    try:
        _cli.main(args=list(arguments) or None, prog_name="qwen-edge", standalone_mode=False)
    except UserError as error:
        sys.exit(_complain(str(error), error.exit_code))
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(clean(shown.getvalue()), err=True, nl=False)  # the message repeats the arguments
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_complain("Interrupted.", 130))


def _complain(sentence: str, code: int) -> int:
    click.echo(f"qwen-edge: {clean(sentence)}", err=True)  # the sentence may quote a server or a file
    return code
