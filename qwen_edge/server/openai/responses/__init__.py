"""OpenAI's Responses API: an answer is a list of items, may be stored, and a later request may go on from it."""
