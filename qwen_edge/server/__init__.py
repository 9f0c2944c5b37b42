"""HTTP, and nothing but HTTP: JSON to a ChatRequest, deltas to OpenAI's chunks."""
