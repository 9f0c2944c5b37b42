"""Asks OpenAI-compatible servers over HTTP, as a program outside the daemon does, and starts them."""
