"""OpenAI's dialect: JSON to a chat request, deltas to JSON."""
