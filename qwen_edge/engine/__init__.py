"""The engine process: one thread, one model, nothing else.

messages in -> Sequence -> ScheduledChunk -> batch -> logits -> token -> text -> messages out
"""
