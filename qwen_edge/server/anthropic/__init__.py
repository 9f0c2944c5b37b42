"""Anthropic's dialect: JSON to a chat request, deltas to content blocks."""
