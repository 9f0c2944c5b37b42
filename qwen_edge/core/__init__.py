"""What knows nothing of models, prompts or devices: small functions and values that every room may import."""
