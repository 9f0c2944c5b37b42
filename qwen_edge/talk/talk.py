"""A conversation in the terminal as it stands: the messages, who answers, what the next question is asked with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from qwen_edge.core.printable import clean
from qwen_edge.talk.answer import Answer
from qwen_edge.talk.conversation import Conversation
from qwen_edge.talk.options import Options
from qwen_edge.talk.partner import Partner


class Leave(Exception):  # noqa: N818 - no error
    """The person wants to leave."""


def is_command(line: str) -> bool:
    """Whether a line is a command. A question that begins with a slash is written with one more."""
    return line.startswith("/") and not line.startswith("//")


def question_of(line: str) -> str:
    """The question that a line asks which is no command."""
    return line[1:] if line.startswith("//") else line


def line_of(question: str) -> str:
    """The line that asks the question."""
    return f"/{question}" if question.startswith("/") else question


@dataclass
class Talk:
    """`confirm` asks yes or no. `last`: the last answer. `pending`: a line that is taken next, without waiting for
    another one. `draft`: a line that stands at the next prompt."""

    partner: Partner
    console: Console
    confirm: Callable[[str], Awaitable[bool]]
    conversation: Conversation = field(default_factory=Conversation)
    options: Options = field(default_factory=Options)
    last: Answer = field(default_factory=Answer)
    pending: str | None = None
    draft: str = ""

    def note(self, words: str) -> None:
        """A line that is not the model's."""
        self.console.print(Text(clean(words), "dim"), soft_wrap=True)

    def complain(self, words: str) -> None:
        """A line on what has gone wrong."""
        self.console.print(Text(clean(words), "red"), soft_wrap=True)

    def show(self, text: Text | None, otherwise: str) -> None:
        """A text of the conversation, or a note if there is none."""
        if text is None:
            self.note(otherwise)
        else:
            self.console.print(Text(clean(text.plain), text.style))

    def introduction(self) -> str:
        """Who answers, in a line."""
        partner = self.partner
        where = "a private daemon, for this conversation" if partner.is_private else partner.url
        size = f", context of {partner.context} tokens" if partner.context else ""
        return f"{partner.model} at {where}{size}"
