"""Ollama's dialect: JSON to a chat request, deltas to lines of JSON."""
