"""The machine the daemon runs on: its sensors, its power budget and how much the engine may compute."""
