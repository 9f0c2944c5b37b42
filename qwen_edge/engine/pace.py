"""How long a batch takes on this device, learned while it works."""

from __future__ import annotations

_TOKENS, _ROWS = 64.0, 8.0  # what counts as one: the three weights are then of one size
_FORGET = 0.98  # of what was learned, at each batch: heat, clocks and depth change
_UNCERTAIN = 100.0  # no weight is held for more uncertain than this, however long nothing has told of it
_OUTLIER = 4.0  # a batch that takes so much longer than expected says something about the machine, not about batches


class Pace:
    """seconds = start + each * tokens + row * rows, where rows are those of logits; fitted by recursive least squares
    with forgetting (Ljung, System Identification, 1999, section 11.2). Pure."""

    def __init__(self, start: float = 0.02, each: float = 0.01, row: float = 0.002) -> None:
        """The first guess is a slow device's: slices grow as it proves faster."""
        self._weights = [start, each * _TOKENS, row * _ROWS]
        self._spread = [[float(i == j) for j in range(3)] for i in range(3)]

    def seconds(self, tokens: int, rows: int = 1) -> float:
        start, each, row = self._weights
        return start + each * tokens / _TOKENS + row * rows / _ROWS

    def tokens_within(self, seconds: float, rows: int = 1) -> int:
        """The largest batch that takes no longer; may be none or less."""
        return int((seconds - self.seconds(0, rows)) / self._weights[1] * _TOKENS)

    def learn(self, tokens: int, rows: int, seconds: float) -> None:
        """A batch of so many tokens and rows has taken so long."""
        x = (1.0, tokens / _TOKENS, rows / _ROWS)
        expected = self.seconds(tokens, rows)
        error = min(seconds, _OUTLIER * expected) - expected
        seen = [sum(a * b for a, b in zip(line, x, strict=True)) for line in self._spread]
        known = _FORGET + sum(a * b for a, b in zip(seen, x, strict=True))
        least = (0.0, 1e-6 * _TOKENS, 0.0)
        self._weights = [max(m, w + s / known * error) for w, s, m in zip(self._weights, seen, least, strict=True)]
        for i in range(3):
            for j in range(3):
                self._spread[i][j] -= seen[i] * seen[j] / known
        if max(self._spread[i][i] for i in range(3)) < _FORGET * _UNCERTAIN:
            self._spread = [[value / _FORGET for value in line] for line in self._spread]
