"""What the daemon knows about the machine it lives on."""
