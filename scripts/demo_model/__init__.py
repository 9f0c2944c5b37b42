"""The demo model's workshop: dialogues, tokenizer, training, measuring, model card.

Everything under `models/demo/` comes from here, by `python -m scripts.demo_model.train`.
Offline scripts of the `train` extra: the daemon never imports them.
"""
