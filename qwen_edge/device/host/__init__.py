"""The machine itself: its processor, its GPU, its memory, and how llama.cpp is built for it."""
