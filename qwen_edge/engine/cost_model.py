"""How long a batch takes on this device, learned while it works."""

from __future__ import annotations

_TOKENS, _ROWS = 64.0, 8.0  # what counts as one: the three weights are then of one size
_FORGET = 0.99  # of what was learned, at each batch: a hundred of them tell sizes apart, the drift follows heat
_UNCERTAIN = 0.1  # no weight is held for more uncertain than this, however long nothing has told of it
_DRIFT = 0.3  # weight of the newest batch in the drift
_TICK = 1e-5  # seconds: less is not measured, as of a clock that stands still
_OUTLIER = 2.0  # a batch that takes so much longer than expected says something about the machine, not about batches


class CostModel:
    """seconds = drift * (start + each * tokens + row * rows), where rows are those of logits.

    The drift is how far the last few batches were off, as each of a long prompt takes longer than the one before. What
    it leaves is fitted by recursive least squares with forgetting (Ljung, System Identification, 1999, section 11.2),
    of the error relative to what was expected: noise grows with the batch, and a large one that was late must not say
    that the others cost nothing. Pure."""

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
        expected = self._fitted(tokens, rows)
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

    def _fitted(self, tokens: int, rows: int) -> float:
        start, each, row = self._weights
        return start + each * tokens / _TOKENS + row * rows / _ROWS
