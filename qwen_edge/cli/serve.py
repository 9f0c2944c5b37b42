"""`qwen-edge serve`: the daemon in the foreground; systemd runs the same command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwen_edge.cli.flags import apply_options, setting
from qwen_edge.config.schema import load_config
from qwen_edge.core.logs import start_logging
from qwen_edge.core.printable import clean
from qwen_edge.daemon.main import serve


@click.command("serve", short_help="Serve a model over HTTP, until stopped.")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="YAML file with settings.")
@click.option("--model", help="GGUF file to serve.  [default: the one in the models folder]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=setting("server.port"), help="Port to listen on; 0 takes a free one.  [default: 8080]")
@click.option("--context", type=setting("engine.context"), help="Tokens of context.  [default: 8192]")
@click.option(
    "--threads", type=setting("engine.threads"), help="Threads to compute with.  [default: one for each physical core]"
)
@click.option(
    "--alias",
    multiple=True,
    help="Another name a client may ask for the model by, where server.model_names is listed; may be given again.  "
    "[default: any name is answered]",
)
def command(file: Path | None, model: str | None, **options: Any) -> None:
    """Serve a model over HTTP, in OpenAI's terms, until stopped.

    Ctrl-C or SIGTERM finishes what runs, then stops; twice stops at once. Options given here win over the file.
    """
    config = apply_options(load_config(file), model, options)
    start_logging(config.log_level)
    serve(config, lambda line: click.echo(clean(line)))
