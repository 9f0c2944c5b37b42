"""`qwen-edge serve`: the daemon in the foreground; systemd runs the same command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from qwen_edge.config import Config, load_config
from qwen_edge.daemon import serve
from qwen_edge.journal import start_logging


@click.command("serve")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="YAML file with settings.")
@click.option("--model", help="GGUF file to serve.  [default: the one in the models folder]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 8080]")
@click.option("--context", type=click.IntRange(64), help="Tokens of context.  [default: 8192]")
@click.option(
    "--threads", type=click.IntRange(1), help="Threads to compute with.  [default: one for each physical core]"
)
def command(file: Path | None, model: str | None, **options: Any) -> None:
    """Serve a model over HTTP, in OpenAI's terms, until stopped.

    Ctrl-C or SIGTERM finishes what runs, then stops; twice stops at once. Options given here win over the file.
    """
    config = _apply(load_config(file), model, options)
    start_logging(config.log_level)
    serve(config, click.echo)


def _apply(config: Config, model: str | None, options: dict[str, Any]) -> Config:
    given = {name: value for name, value in options.items() if value is not None}
    server = {name: given[name] for name in ("host", "port") if name in given}
    engine = {name: given[name] for name in ("context", "threads") if name in given}
    return msgspec.structs.replace(
        config,
        model=model or config.model,
        server=msgspec.structs.replace(config.server, **server),
        engine=msgspec.structs.replace(config.engine, **engine),
    )
