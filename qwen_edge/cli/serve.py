"""`qwen-edge serve`: runs the daemon in the foreground; systemd runs the same command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwen_edge.cli.flags import setting
from qwen_edge.config.load import apply_options, load_config
from qwen_edge.core.logs import start_logging
from qwen_edge.core.printable import clean
from qwen_edge.daemon.main import serve


@click.command("serve", short_help="Serve a model over HTTP until stopped.")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="Settings file (YAML).")
@click.option("--model", help="GGUF file to serve.  [default: the one in the models folder]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=setting("server.port"), help="Port to listen on; 0 picks a free one.  [default: 8080]")
@click.option("--context", type=setting("engine.context"), help="Size of the context in tokens.  [default: 8192]")
@click.option(
    "--threads", type=setting("engine.threads"), help="Threads to compute with.  [default: one for each physical core]"
)
@click.option(
    "--alias",
    multiple=True,
    help="Further model name to accept, with server.model_names: listed; may be given more than once.  "
    "[default: any name is accepted]",
)
def command(file: Path | None, model: str | None, **options: Any) -> None:
    """Serve a model over HTTP, with an OpenAI-compatible API, until stopped.

    Ctrl-C or SIGTERM finishes the running requests, then stops; a second one stops at once. Options override the
    settings file.
    """
    config = apply_options(load_config(file), model, options)
    start_logging(config.log_level)
    serve(config, lambda line: click.echo(clean(line)))
