"""`qwen-edge cache`: lists, deletes and pins the conversations that a running daemon has cached."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import click
from rich.table import Table
from rich.text import Text

from qwen_edge.cli.daemon_client import another_answer, ask, path_at, url_option
from qwen_edge.cli.flags import Number
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import plain, terminal
from qwen_edge.config.schema import MOST_PIN_HOURS
from qwen_edge.core.printable import clean

_COUNTS = ("tokens", "cached", "copied", "written")
_FIELDS = {"key", *_COUNTS, "file_bytes", "pinned_until", "ends"}  # the fields of a conversation


@click.group("cache", short_help="List, delete or pin cached conversations.")
@url_option("Address of the daemon.")
@click.pass_context
def command(context: click.Context, url: str) -> None:
    """List the conversations that the daemon has cached, delete one, or pin one.

    If the daemon requires an API key, set the environment variable QWEN_EDGE_API_KEY."""
    context.obj = path_at(url, "/v1/cache")


@command.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as JSON.")
@click.pass_obj
def list_kept(url: str, as_json: bool) -> None:
    """List conversations, one a line, the longest first."""
    _show(_ask("GET", url), as_json=as_json)


@command.command("rm")
@click.argument("key")
@click.pass_obj
def remove(url: str, key: str) -> None:
    """Delete a conversation from memory and disk. Prefixes that it shares with other conversations stay."""
    _show(_ask("DELETE", f"{url}/{quote(key, safe='')}"))


@command.command("pin", short_help="Keep a conversation for some hours, also on disk.")
@click.argument("key")
@click.option(
    "--hours", type=Number(0, MOST_PIN_HOURS), default=24.0, show_default=True, help="How long to keep it; 0 unpins it."
)
@click.pass_obj
def pin(url: str, key: str, hours: float) -> None:
    """Pin a conversation, such as a system prompt or a manual: it is written to disk and evicted last."""
    _show(_ask("POST", f"{url}/{quote(key, safe='')}/pin", {"hours": hours}))


def _one_line(text: object) -> Text:
    """Text for a column that may be narrowed: truncated, not wrapped."""
    line = plain(text)
    line.no_wrap = True
    return line


def _ask(method: str, url: str, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    found = ask(method, url, body)
    kept: list[dict[str, Any]] | None = found.get("data") if isinstance(found, dict) else None
    if not isinstance(kept, list) or not all(isinstance(one, dict) and one.keys() >= _FIELDS for one in kept):
        raise another_answer(url)
    if warning := found.get("warning"):
        click.echo(clean(str(warning)), err=True)
    return kept


def _show(kept: list[dict[str, Any]], *, as_json: bool = False) -> None:
    if as_json:
        click.echo(to_json(kept))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    for title in ("tokens", "cached", "copied", "on disk", "MB", "pinned"):
        table.add_column(title, justify="right", no_wrap=True)
    if owners := any("owner" in one for one in kept):  # only admins see owners
        table.add_column("owner", min_width=5, overflow="ellipsis")
    table.add_column("ends", overflow="ellipsis")  # only columns that may wrap are narrowed; the others are no_wrap
    for one in kept:
        counts = [str(one[name]) for name in _COUNTS]
        hours = (one["pinned_until"] - time.time()) / 3600
        pinned = f"{hours:.1f} h" if hours > 0 else ""
        texts = [one.get("owner", ""), one["ends"]] if owners else [one["ends"]]
        size = f"{one['file_bytes'] / 1e6:.0f}"
        table.add_row(plain(one["key"]), *counts, size, pinned, *(_one_line(text) for text in texts))
    terminal().print(table if kept else "Nothing is remembered.")
