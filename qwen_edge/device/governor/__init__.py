"""How much the engine may compute, decided from telemetry. Pure."""
