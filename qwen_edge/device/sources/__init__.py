"""The sources of telemetry: sysfs, jtop, the sensors of a PC, NVML, a recorded trace."""
