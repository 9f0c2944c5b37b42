"""How long a batch takes on this device, learned while it works."""

from __future__ import annotations

_TOKENS, _ROWS = 64.0, 8.0  # units, in which the three weights are of one size
_FORGET = 0.99  # kept of what was learned, at each batch: a hundred batches tell sizes apart, the drift follows heat
_UNCERTAIN = 0.1  # no weight counts as more uncertain than this, however long no batch has told of it
_DRIFT = 0.3  # weight of the newest batch in the drift
_TICK = 1e-5  # seconds: less is not measured, as of a clock that stands still
_OUTLIER = 2.0  # a batch that takes this many times as long as expected tells of the machine, not of batches


class CostModel:
    """seconds = drift * (start + each * tokens + row * rows), where rows are rows of logits.

    The drift is how far the last few batches were off: each batch of a long prompt takes longer than the one before.
    The rest is fitted by recursive least squares with forgetting (Ljung, System Identification, 1999, section 11.2) of
    the relative error: noise grows with the batch, and a large batch that was late must not make small ones seem to
    cost nothing. Pure."""

    def __init__(self, start: float = 0.02, each: float = 0.01, row: float = 0.002) -> None:
        """The first values are a slow device's: slices grow as the device proves faster."""
        self._weights = [start, each * _TOKENS, row * _ROWS]
        self._drift = 1.0
        self._spread = [[float(i == j) for j in range(3)] for i in range(3)]

    def seconds(self, tokens: int, rows: int = 1) -> float:
        return self._drift * self.usual(tokens, rows)

    def usual(self, tokens: int, rows: int = 1) -> float:
        """What a batch of this size takes usually, whatever the last few batches took."""
        start, each, row = self._weights
        return start + each * tokens / _TOKENS + row * rows / _ROWS

    def tokens_within(self, seconds: float, rows: int = 1) -> int:
        """The tokens of the largest batch that takes no longer than `seconds`; 0 or less if none does."""
        return int((seconds / self._drift - self.usual(0, rows)) / self._weights[1] * _TOKENS)

    def learn(self, tokens: int, rows: int, seconds: float) -> None:
        """A batch of this size has taken `seconds`."""
        expected = self.usual(tokens, rows)
        ratio = min(max(seconds, _TICK) / expected, _OUTLIER * self._drift)
        error = ratio / self._drift - 1
        self._drift += _DRIFT * (ratio - self._drift)
        x = (1 / expected, tokens / _TOKENS / expected, rows / _ROWS / expected)
        seen = [sum(a * b for a, b in zip(line, x, strict=True)) for line in self._spread]
        known = _FORGET + sum(a * b for a, b in zip(seen, x, strict=True))
        least = (0.0, 1e-6 * _TOKENS, 0.0)
        self._weights = [max(m, w + s / known * error) for w, s, m in zip(self._weights, seen, least, strict=True)]
        for i in range(3):
            for j in range(3):
                self._spread[i][j] -= seen[i] * seen[j] / known
        if max(self._spread[i][i] for i in range(3)) < _FORGET * _UNCERTAIN:
            self._spread = [[value / _FORGET for value in line] for line in self._spread]
