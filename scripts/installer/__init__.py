"""The parts of scripts/bootstrap.py. They use only the standard library, and leave bytecode nowhere."""
