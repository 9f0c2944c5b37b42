"""Writes the dialogues: what is asked, in which words, with which tools, and what is answered.

Language and tools stand in `data/*.yaml`; the modules here combine them. Everything is drawn
from a `Random` that the caller gives, so a seed is a corpus. Layers, each using those above:

    split tables        what is held out; the tables
    words names         values, real and made up
    numbers tools       values, and where they are written
    actions spelling    what can be asked for; tools as people spell them
    intents wording     one wish with its values; the sentence for it
    results talk scene  what tools return; talk without tools; prompt and tools
    commands followups  requests that stand alone, and those that do not
    dialogues           the conversation
"""
