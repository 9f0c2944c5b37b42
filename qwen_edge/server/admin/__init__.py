"""What is not chat: health, metrics, the device, and what is remembered."""
