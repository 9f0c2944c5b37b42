"""What a user can ask for: the actions of `data/actions.yaml` with the nouns of `data/nouns.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tables import phrases, table
from .words import LANGS, Lang


@dataclass(frozen=True, slots=True)
class Wording:
    """One action in one language; the first frame is the plain one."""

    frames: tuple[str, ...]
    done: str
    too: tuple[str, ...]
    again: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Action:
    """`fixed` values are sent always, `implied` ones only to a tool that requires them."""

    name: str
    family: str
    slots: tuple[str, ...]
    fixed: Mapping[str, str]
    implied: Mapping[str, str]
    question: bool
    wording: Mapping[Lang, Wording]


@dataclass(frozen=True, slots=True)
class Nouns:
    """What a family's thing is called with its room, without it, and once it is known."""

    roomy: tuple[str, ...]
    bare: tuple[str, ...]
    pronoun: str


def _wording(base: Mapping[str, str], own: Mapping[str, str]) -> Wording:
    return Wording(
        frames=phrases(base.get("ask")) + phrases(own.get("ask")),
        done=own.get("done") or base["done"],
        too=phrases(own.get("too", base.get("too"))),
        again=phrases(own.get("again", base.get("again"))),
    )


def _action(name: str, entry: Mapping[str, Any]) -> Action:
    base = table("actions")["bases"].get(entry.get("base"), {})
    return Action(
        name=name,
        family=entry["family"],
        slots=tuple(entry.get("slots", "").split()),
        fixed=entry.get("fixed", base.get("fixed", {})),
        implied=entry.get("implied", {}),
        question=entry.get("question", False),
        wording={lang: _wording(base.get(lang, {}), entry.get(lang, {})) for lang in LANGS},
    )


def _nouns(entry: Mapping[str, str]) -> Nouns:
    return Nouns(phrases(entry.get("roomy")), phrases(entry["bare"]), entry["pronoun"])


ACTIONS = tuple(_action(name, entry) for name, entry in table("actions")["actions"].items())
NOUNS = {family: {lang: _nouns(entry[lang]) for lang in LANGS} for family, entry in table("nouns").items()}
