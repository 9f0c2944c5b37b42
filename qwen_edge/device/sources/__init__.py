"""Where telemetry is read from: sysfs, jtop, a PC's own sensors, NVML, a recorded trace."""
