"""All that crosses between the daemon and the engine process."""
