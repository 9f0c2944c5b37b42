"""Trains the tokenizer and writes it in Qwen's layout: byte-level BPE, 26 added tokens at the end.

Everything but the size and the merges is Qwen2's: normalizer, splitting expression, added
tokens and their order. All 256 bytes are in the vocabulary, so any text can be read.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

ADDED = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
SPECIAL = frozenset(ADDED[:14])
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FINER = r"\p{Han}|(?<=\p{Ll})\p{Lu}\p{Ll}*|[^\s\p{L}\p{N}_](?=\p{L})"


def train_tokenizer(texts: Iterable[str], rows: int) -> Tokenizer:
    """A tokenizer of exactly `rows` entries, added tokens included.

    While merges are learned, text is cut finer than when it is read: Qwen's expression takes a
    whole Chinese sentence, or turnOnLight, for one word, and would make it one useless token.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.Split(Regex(_FINER), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=rows - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    if len(learned["vocab"]) != rows - len(ADDED):
        raise ValueError(f"the texts are too uniform for {rows} rows: only {len(learned['vocab'])} tokens were found")
    return Tokenizer.from_str(json.dumps(_layout(learned["vocab"], learned["merges"])))


def _layout(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    """tokenizer.json as Qwen writes it."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": len(vocab) + i, "content": token, **flags, "special": token in SPECIAL} for i, token in enumerate(ADDED)
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": model,
    }


def write_tokenizer(tokenizer: Tokenizer, folder: Path, template: str, context: int) -> None:
    """tokenizer.json and the three older files beside it, as Qwen's repositories have them."""
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    whole = json.loads(tokenizer.to_str())
    merges = "".join(f"{left} {right}\n" for left, right in whole["model"]["merges"])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    vocab = json.dumps(whole["model"]["vocab"], ensure_ascii=False)
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(token.pop("id")): token for token in whole["added_tokens"]},
        "additional_special_tokens": list(ADDED[1:14]),
        "bos_token": None,
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": context,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")


def added_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of an added token, which is there."""
    number = tokenizer.token_to_id(token)
    assert number is not None, token
    return int(number)
