"""The conversation in the terminal: `qwen-edge chat`."""
