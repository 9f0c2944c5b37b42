"""Small functions and values that every package may import. They know nothing of models, prompts or devices."""
