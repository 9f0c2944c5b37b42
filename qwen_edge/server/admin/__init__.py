"""Endpoints other than chat: health, metrics, the device, and remembered conversations."""
