"""Whether the model is to think before it answers, and how long: the one meaning of all the names that dialects have
for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.chat.soft_switch import switched_thinking
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)

# tokens of reasoning; the model was trained with and without thinking, but not with degrees of it
_BUDGETS: Mapping[Effort, int] = {"minimal": 128, "low": 512, "medium": 2048}


@dataclass(frozen=True)
class Thinking:
    """`on`: None leaves the choice to the template. `budget`: tokens after which the reasoning is ended."""

    on: bool | None = None
    budget: int | None = None


def thinking(
    *,
    switch: bool | None = None,
    effort: Effort | None = None,
    budget: int | None = None,
    effort_parameter: str = "reasoning_effort",
    messages: Sequence[Mapping[str, Any]] = (),
    defaults: ChatConfig,
    can: TemplateAbilities,
) -> Thinking:
    """What counts, the strongest first: `switch`, on or off (a model that cannot do that refuses it when it renders the
    prompt); a budget of 0; the effort; /think and /no_think in the messages; the settings. Only the switch asks
    something of a model that always or never thinks. Raises RequestError for the effort "none" on a model that always
    thinks."""
    limit = first(budget, _BUDGETS.get(effort) if effort else None, defaults.thinking_budget)
    if limit == 0 and switch is not False:
        # the engine ends the thinking of a model that always thinks at its first token
        return Thinking(None if can.thinking == "always" else False, limit)
    if switch is not None:
        return Thinking(switch, limit)
    if effort == "none" and can.thinking == "always":
        raise RequestError(
            f"{effort_parameter}: this model always thinks. Send another effort, or a thinking budget.",
            parameter=effort_parameter,
        )
    asked = effort != "none" if effort else switched_thinking(messages)
    return Thinking(first(asked, defaults.thinking) if can.thinking == "optional" else None, limit)


def thinking_when_begun(switch: bool | None, switch_parameter: str, can: TemplateAbilities) -> Thinking:
    """There is none: the last message begins the answer. `switch_parameter`: what the client calls the switch. Raises
    RequestError if the switch is on."""
    if not switch:
        return Thinking(False if can.thinking == "optional" else None)
    name = switch_parameter.partition(".")[0]
    raise RequestError(
        f"{name}: the last message begins the answer, so the model cannot think before it. Leave {name} out, or end "
        "the messages with a question.",
        parameter=switch_parameter,
    )
