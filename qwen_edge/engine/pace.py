"""How long a batch takes on this device, learned while it works."""

from __future__ import annotations

_TOKENS, _ROWS = 64.0, 8.0  # what counts as one: the three weights are then of one size
_FORGET = 0.98  # of what was learned, at each batch: heat, clocks and depth change
_UNCERTAIN = 100.0  # no weight is held for more uncertain than this, however long nothing has told of it
_DRIFT = 0.3  # weight of the newest batch in the drift
_LEAP = 1.5  # the most that one batch can say about it
_OUTLIER = 4.0  # a batch that takes so much longer than expected says something about the machine, not about batches


class Pace:
    """seconds = drift * (start + each * tokens + row * rows), where rows are those of logits.

    The weights are fitted by recursive least squares with forgetting (Ljung, System Identification, 1999, section
    11.2), over some fifty batches; the drift is how far the last few were off, as every batch of a long prompt takes
    longer than the one before. Pure."""

    def __init__(self, start: float = 0.02, each: float = 0.01, row: float = 0.002) -> None:
        """The first guess is a slow device's: slices grow as it proves faster."""
        self._weights = [start, each * _TOKENS, row * _ROWS]
        self._drift = 1.0
        self._spread = [[float(i == j) for j in range(3)] for i in range(3)]

    def seconds(self, tokens: int, rows: int = 1) -> float:
        return self._drift * self._fitted(tokens, rows)

    def tokens_within(self, seconds: float, rows: int = 1) -> int:
        """The largest batch that takes no longer; may be none or less."""
        return int((seconds / self._drift - self._fitted(0, rows)) / self._weights[1] * _TOKENS)

    def learn(self, tokens: int, rows: int, seconds: float) -> None:
        """A batch of so many tokens and rows has taken so long."""
        x = (1.0, tokens / _TOKENS, rows / _ROWS)
        expected = self._fitted(tokens, rows)
        seconds = min(seconds, _OUTLIER * expected)
        error = seconds - expected
        self._drift += _DRIFT * (min(seconds / expected, _LEAP) - self._drift)
        seen = [sum(a * b for a, b in zip(line, x, strict=True)) for line in self._spread]
        known = _FORGET + sum(a * b for a, b in zip(seen, x, strict=True))
        least = (0.0, 1e-6 * _TOKENS, 0.0)
        self._weights = [max(m, w + s / known * error) for w, s, m in zip(self._weights, seen, least, strict=True)]
        for i in range(3):
            for j in range(3):
                self._spread[i][j] -= seen[i] * seen[j] / known
        if max(self._spread[i][i] for i in range(3)) < _FORGET * _UNCERTAIN:
            self._spread = [[value / _FORGET for value in line] for line in self._spread]

    def _fitted(self, tokens: int, rows: int) -> float:
        start, each, row = self._weights
        return start + each * tokens / _TOKENS + row * rows / _ROWS
