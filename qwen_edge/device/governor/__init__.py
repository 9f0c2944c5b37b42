"""The governor: decides from telemetry how much the engine may compute. Pure."""
