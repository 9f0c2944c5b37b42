"""Chat as text: messages to a prompt, and generated text back to what a client understands. Pure, no I/O."""
