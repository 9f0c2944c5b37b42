"""The daemon: start-up, main loop, shutdown."""
