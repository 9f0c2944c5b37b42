"""Makes tools concrete: names, parameter names, enums, descriptions, in the many ways people write them.

A model that has seen one spelling learns the spelling; one that has seen thousands reads the
schema. Plans and slots are the tables `data/plans.yaml` and `data/slots.yaml`.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from .names import made_up_name
from .split import Split
from .tables import phrases, table
from .tools import Parameter, Schema, Tool

Plan = Mapping[str, Any]
LAYOUTS: Mapping[str, Sequence[Sequence[Plan]]] = table("plans")["layouts"]

_TRIES = 100
_NAME_STYLES: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    lambda name: "".join(part.capitalize() if i else part for i, part in enumerate(name.split("_"))),
)
_NAME_WEIGHTS = (80, 20)


def make_tools(rng: Random, family: str, layout: Sequence[Plan], split: Split) -> list[Tool]:
    """The tools of one layout; a parameter that they share is written the same in all of them."""
    shared: dict[str, Parameter] = {}
    tools = []
    for plan in layout:
        tool = _of_split(rng, family, plan, shared, split)
        shared |= {p.slot: p for p in tool.parameters}
        tools.append(tool)
    return tools


def _of_split(rng: Random, family: str, plan: Plan, shared: Mapping[str, Parameter], split: Split) -> Tool:
    """Training never has a held-out spelling; held-out scenes have one where the plan allows it, half the time."""
    unseen = split is Split.HELD_OUT and rng.random() < 0.5
    tool = _draw(rng, family, plan, shared, split)
    for _ in range(_TRIES):
        if tool.unseen == unseen:
            break
        tool = _draw(rng, family, plan, shared, split)
    assert split is Split.HELD_OUT or not tool.unseen, f"no spelling of {plan['verbs']} is for training"
    return tool


def _draw(rng: Random, family: str, plan: Plan, shared: Mapping[str, Parameter], split: Split) -> Tool:
    planned = plan.get("slots", "").split()
    slots = [slot[:-1] for slot in planned if slot.endswith("!") or rng.random() < 0.55]
    if rng.random() < 0.1:
        rng.shuffle(slots)
    described = rng.random() < 0.4
    chosen = [shared.get(slot) or make_parameter(rng, slot, described, split) for slot in slots]
    parameters = _distinct(rng, chosen, split)
    return Tool(
        family=family,
        name=_name(rng, plan, split),
        description=_description(rng, plan),
        parameters=parameters,
        required=_required(rng, planned, slots),
        fixed=plan.get("fixed", {}),
        extras={"additionalProperties": False} if rng.random() < 0.08 else {},
    )


def _distinct(rng: Random, parameters: Sequence[Parameter], split: Split) -> list[Parameter]:
    """The parameters, with names drawn anew until no two are the same."""
    taken: dict[str, Parameter] = {}
    for parameter in parameters:
        one = parameter
        while one.name in taken:
            one = make_parameter(rng, parameter.slot, "description" in parameter.schema, split)
        taken[one.name] = one
    return list(taken.values())


def _required(rng: Random, planned: Sequence[str], slots: Sequence[str]) -> tuple[str, ...]:
    """Most schemas require what is always there; some say nothing."""
    return tuple(slot for slot in slots if f"{slot}!" in planned) if rng.random() < 0.9 else ()


def _description(rng: Random, plan: Plan) -> str:
    return "" if rng.random() < 0.1 else rng.choice(phrases(plan["about"]))


def _name(rng: Random, plan: Plan, split: Split) -> str:
    """Verb and noun in some style. In training some have a vendor's name before them, to practise copying."""
    verbs = _widened(rng, phrases(plan["verbs"]), "verbs", phrases(plan["verbs"])[0], split)
    plain = f"{rng.choice(verbs)}_{rng.choice(phrases(plan['nouns']))}"
    if split is not Split.HELD_OUT and rng.random() < 0.2:
        plain = f"{made_up_name(rng)}_{plain}"
    return rng.choices(_NAME_STYLES, _NAME_WEIGHTS)[0](plain)


def _widened(rng: Random, words: Sequence[str], kind: str, key: str, split: Split) -> Sequence[str]:
    """The words, or in wide training every second time others of the same meaning."""
    wide = split is Split.WIDE and rng.random() < 0.5
    return phrases(table("wider")[kind][key]) if wide else words


def make_parameter(rng: Random, slot: str, described: bool, split: Split) -> Parameter:
    """One spelling of a slot, described or not."""
    entry = table("slots")[slot]
    hints = phrases(entry.get("hints"))
    hint: Schema = {"description": rng.choice(hints)} if described and hints else {}
    name = rng.choice(_widened(rng, phrases(entry["names"]), "parameters", slot, split))
    if "range" in entry:
        return Parameter(slot, name, _number(rng, entry["range"], hint))
    if "values" in entry:
        return _closed(rng, slot, name, entry["values"], hint)
    return Parameter(slot, name, {"type": "string"} | hint)


def _number(rng: Random, limits: Sequence[int], hint: Schema) -> Schema:
    stated = {"minimum": limits[0], "maximum": limits[1]} if rng.random() < 0.2 else {}
    return {"type": "number" if rng.random() < 0.25 else "integer"} | hint | stated


def _closed(rng: Random, slot: str, name: str, written: Mapping[str, str], hint: Schema) -> Parameter:
    """A parameter that takes listed values only."""
    values = list(written.values())
    rng.shuffle(values)
    return Parameter(slot, name, {"type": "string", "enum": values} | hint, written)
