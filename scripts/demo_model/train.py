"""Trains the demo model from nothing and writes `models/demo/`: one command, one seed, the same weights.

    python -m scripts.demo_model.train --out models/demo

Three courses. The first begins with rows that only teach copying, goes on with dialogues that
offer one tool (short prompts, quickly learned), then up to three. The others go on from what the
one before has written: the second with other dialogues, gentler, the third with many more words
for rooms and tools, so that they are read and not known by heart. All end with the weights
rounded as Q4_K_M rounds them. Muon moves the matrices, AdamW the embedding and the norms. Needs
the `train` extra.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from .checkpoint import read_checkpoint, write_checkpoint
from .copying import copying_trees
from .corpus import Encoder, mixed, plain_texts, trees
from .model import Qwen3, Shape
from .rounding import rounded
from .rows import Row, to_row
from .tokenizer import train_tokenizer
from .wiring import wire_copying


@dataclass(frozen=True, slots=True)
class Plan:
    """One course of the training, in steps of `batch` rows."""

    steps: int
    batch: int = 4
    warmup: int = 50
    copying_until: int = 100
    few_tools_until: float = 0.2
    rounded_from: float = 0.75
    falling_from: float = 0.4
    rate: float = 5e-3
    decay: float = 0.05
    copying_every: int = 12
    wide: float = 0.0
    seed: int = 20

    def rate_at(self, step: int) -> float:
        """Rises, stays, falls to nothing."""
        left = (self.steps - step) / (self.steps * (1 - self.falling_from))
        return self.rate * min(1.0, (step + 1) / self.warmup, left)


COURSES = (
    Plan(steps=4400),
    Plan(steps=1300, copying_until=0, few_tools_until=0.0, rounded_from=0.4, falling_from=0.1, rate=3e-3, seed=22),
    Plan(steps=3600, copying_until=0, few_tools_until=0.0, falling_from=0.3, rate=4e-3, wide=0.6, seed=24),
)


def train(plan: Plan, model: Qwen3, rows: Iterator[Row]) -> None:
    """Changes the model. Reports to stdout as it goes."""
    optimizers = make_optimizers(model, plan)
    started, read, learned, smooth = time.monotonic(), 0, 0, 0.0
    for step in range(plan.steps):
        batch = list(islice(rows, plan.batch))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate_at(step)
        with rounded(model) if step >= plan.rounded_from * plan.steps else nullcontext():
            loss = backward(model, batch)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        read += sum(row.tokens.numel() for row in batch)
        learned += sum(row.labels.numel() for row in batch)
        smooth = loss if step == 0 else 0.98 * smooth + 0.02 * loss
        if (step + 1) % 50 == 0 or step + 1 == plan.steps:
            seconds = time.monotonic() - started
            tokens = f"{read / 1e6:.2f} M tokens read, {learned / 1e6:.2f} M learned"
            speed = f"{seconds:.0f} s, {read / seconds:.0f} tokens/s"
            print(f"step {step + 1:5d}  loss {smooth:.4f}  {tokens}, {speed}", flush=True)


def backward(model: Qwen3, batch: list[Row]) -> float:
    """Gradients of the mean loss over the batch's answers; rows one by one, so that none is padded."""
    answers = sum(row.labels.numel() for row in batch)
    total = 0.0
    for row in batch:
        logits = model(row.tokens, row.positions, row.mask, row.wanted)
        loss = functional.cross_entropy(logits, row.labels, reduction="sum") / answers
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def make_optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=plan.rate, weight_decay=plan.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rows_of(plan: Plan, encode: Encoder, vocab: int) -> Iterator[Row]:
    """Copying; dialogues with one tool; dialogues with up to three; and among these a little copying."""
    copying = copying_trees(plan.seed, vocab)
    few = int(plan.few_tools_until * plan.steps) * plan.batch
    dialogues = chain(islice(trees(plan.seed, encode, most_tools=1), few), trees(plan.seed + 1, encode, wide=plan.wide))
    first = islice(copying, plan.copying_until * plan.batch)
    return map(to_row, chain(first, mixed(dialogues, copying, plan.copying_every)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model and write its checkpoint.")
    parser.add_argument("--out", type=Path, default=Path("models/demo"))
    parser.add_argument("--course", type=int, choices=range(1, len(COURSES) + 1), help="only this one")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    for number, plan in enumerate(COURSES, 1):
        if options.course in (None, number):
            model, tokenizer = begin(plan.seed, options.out) if number == 1 else read_checkpoint(options.out)
            train(plan, model, rows_of(plan, Encoder(tokenizer), model.shape.vocab))
            write_checkpoint(model, tokenizer, options.out)


def begin(seed: int, folder: Path) -> tuple[Qwen3, Tokenizer]:
    """A fresh model with the circuit for copying laid in, and its tokenizer."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shape = Shape()
    tokenizer = train_tokenizer(plain_texts(seed, 2500), shape.vocab)
    model = Qwen3(shape)
    wire_copying(model)
    return model, tokenizer


if __name__ == "__main__":
    main()
