"""`python -m qwen_edge` is the `qwen-edge` command."""

from qwen_edge.cli import main

main()
