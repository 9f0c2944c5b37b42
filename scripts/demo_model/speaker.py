"""The model behind llama.cpp, for measuring: a prompt in, the model's own words out."""

import json
from dataclasses import dataclass
from pathlib import Path

from llama_cpp import Llama

CONFIG = Path(__file__).resolve().parents[2] / "models" / "demo" / "generation_config.json"
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


class Speaker:
    """The model behind llama.cpp; one conversation's cache is kept while prompts share it."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        self._model = Llama(str(path), n_ctx=4096, n_threads=threads, n_threads_batch=threads, verbose=False)

    def answer(self, prompt: str, sampling: Sampling, seed: int = 0) -> str:
        """The model's own words after the prompt."""
        tokens = self._model.tokenize(prompt.encode(), add_bos=False, special=True)
        self._model.set_seed(seed)
        said: list[int] = []
        for token in self._model.generate(
            tokens, temp=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, min_p=0.0
        ):
            if token == self._model.token_eos() or len(said) == _LONGEST:
                break
            said.append(token)
        return self._model.detokenize(said, special=True).decode(errors="replace")


def sampling_of(config: Path = CONFIG) -> Sampling:
    """The settings of a generation_config.json."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    return Sampling(settings["temperature"], settings["top_k"], settings["top_p"])
