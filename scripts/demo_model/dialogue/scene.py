"""Where a dialogue takes place: the system prompt and the tools that are offered."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from .actions import ACTIONS, Action
from .intents import fits
from .spelling import LAYOUTS, make_tools
from .split import Split
from .tables import phrases, table
from .tools import Tool


@dataclass(frozen=True, slots=True)
class Scene:
    """A system prompt (or none) and the tools of one or more dialogues."""

    system: str | None
    tools: tuple[Tool, ...]
    split: Split

    def tool_for(self, action: Action) -> Tool | None:
        return next((tool for tool in self.tools if fits(tool, action)), None)

    def possible(self, family: str) -> Iterator[tuple[Action, Tool]]:
        """The family's actions that a tool here does, with that tool."""
        for action in ACTIONS:
            tool = self.tool_for(action)
            if tool is not None and action.family == family:
                yield action, tool


def draw_scene(rng: Random, split: Split, most_tools: int = 3) -> Scene:
    return Scene(_system(rng), tuple(_tools(rng, split, most_tools)), split)


def _system(rng: Random) -> str | None:
    if rng.random() < 0.5:
        return None
    return rng.choice(phrases(table("sentences")["system"]))


def _tools(rng: Random, split: Split, most: int) -> list[Tool]:
    """Families until there are enough tools: each request has one tool, as no two of them do the same."""
    if rng.random() < 0.06:
        return []
    wanted = min(most, rng.choice((1, 2, 2, 3, 3) if split is Split.WIDE else (1, 1, 2, 2, 3)))
    families = rng.sample(sorted(LAYOUTS), len(LAYOUTS))
    tools: list[Tool] = []
    for family in families:
        if len(tools) >= wanted:
            break
        tools += make_tools(rng, family, rng.choice(LAYOUTS[family]), split)
    few = list({tool.name: tool for tool in tools}.values())[:most]
    rng.shuffle(few)
    return few
