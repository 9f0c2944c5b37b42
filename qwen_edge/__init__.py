"""qwen-edge: a small language model that lives on your device.

The life of a request, and which module may import which, stands in ARCHITECTURE.md.
"""
