"""The machine itself: processor, GPU and memory, and the commands that build llama.cpp for it."""
