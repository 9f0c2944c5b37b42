"""Answers that keep their shape: JSON schemas, regular expressions and grammars, as constraints on tokens."""
