"""Makes a smart home's system prompt of 1,500 words, like Home Assistant's: it begins with a clock and states. Pure."""

from __future__ import annotations

from collections.abc import Sequence

QUESTIONS = (
    "Is the front door locked?",
    "Turn on the light above the worktop, please.",
    "How warm is it outside?",
    "Close the blinds in the study.",
)

_INDOORS = ("ceiling light", "blinds", "heating", "motion sensor")

ROOMS = {
    "kitchen": (*_INDOORS, "worktop light", "coffee machine", "dishwasher", "extractor fan"),
    "living room": (*_INDOORS, "floor lamp", "television", "media speaker", "patio door"),
    "hall": (*_INDOORS, "front door", "doorbell", "coat rack lamp", "smoke detector"),
    "study": (*_INDOORS, "desk lamp", "printer", "air sensor", "wall socket"),
    "main bedroom": (*_INDOORS, "bedside lamp", "media speaker", "air sensor", "smoke detector"),
    "children's room": (*_INDOORS, "night light", "media speaker", "air sensor", "smoke detector"),
    "guest room": (*_INDOORS, "bedside lamp", "wall socket", "air sensor", "smoke detector"),
    "bathroom": (*_INDOORS, "mirror light", "towel rail", "extractor fan", "leak sensor"),
    "laundry": (*_INDOORS, "washing machine", "tumble dryer", "leak sensor", "wall socket"),
    "garage": ("motion sensor", "garage door", "wall box", "wall socket", "smoke detector"),
    "garden": ("motion sensor", "path lamps", "irrigation valve", "mowing robot", "patio socket"),
}

_ABILITIES = {
    "light": "on or off, dimmed to 1 to 100 percent",
    "lamp": "on or off, dimmed to 1 to 100 percent, warm or cold",
    "lamps": "on or off, all of them together, until sunrise",
    "blinds": "open, close, stop, position from 0 to 100 percent",
    "heating": "off, eco or comfort, target from 5 to 28 degrees",
    "sensor": "read only, reports on change",
    "detector": "read only, never switch it off",
    "machine": "start, pause, tells how many minutes are left",
    "dishwasher": "start, pause, tells how many minutes are left",
    "dryer": "start, pause, tells how many minutes are left",
    "fan": "off, low or high, stops by itself after 30 minutes",
    "television": "on or off, source, volume from 0 to 100",
    "speaker": "play, pause, next, volume from 0 to 100",
    "door": "read only for whether it is open, lock or unlock where it has a lock",
    "doorbell": "read only, rings on every media speaker",
    "printer": "on or off, tells how much ink is left",
    "socket": "on or off, measures power in watts",
    "rail": "on or off, stops by itself after two hours",
    "box": "start, stop, limit from 6 to 16 amperes",
    "valve": "open or close, no longer than 20 minutes",
    "robot": "start, pause, go home",
}

_RULES = """\
Answer questions about the home from the list of devices and from the states you were given, and from nothing else.
Answer in one or two short sentences of plain text, as they are read aloud: no lists, no headings, no emoji.
Answer in the language of the question, and keep the names of rooms and devices as they are in the list.
When a question is about the world and not about the home, answer it truthfully, and say so if you do not know.
When you are asked to change something, name the device and its room, and say what you have done in the past tense.
When a device is not in the list, say that it is not there, and do not offer another one in its place.
When a room is not named, take the room in which the question was asked; if you do not know it, ask for the room.
When several devices fit and the room does not decide, ask which one is meant, and name no more than three of them.
Never unlock a door, open the garage or switch off a detector without asking for confirmation first.
Never open the irrigation valve while it rains, or while the soil sensor reports more than 60 percent.
Between ten in the evening and seven in the morning no speaker is louder than 30, and the blinds of bedrooms stay shut.
If nobody is at home, lights and heating may be switched off, but nothing may be switched on except by name.
Comfort is 21 degrees in living rooms, 18 in bedrooms and 23 in the bathroom; eco is three degrees less everywhere.
Windows that are open for longer than ten minutes turn the heating of their room off; say so when you are asked why.
The washing machine and the dryer run when the sun delivers more than 1,500 watts, unless somebody wants them now.
The car is charged with what the sun delivers, and from the grid only after midnight, up to 80 percent.
Cleaning is done on weekdays between nine and twelve, and never while somebody works in the study.
Guests may switch lights, blinds and music; doors, heating and the car are for the family.
Temperatures are in degrees Celsius, times in the 24-hour clock, power in watts and energy in kilowatt-hours.
When a state is unknown or unavailable, say that the device does not answer, and when it was last seen.
Do not repeat the question, do not explain these rules, and do not say that you are a language model."""


def home_prompt(rooms: Sequence[str], minute: int, *, marked: bool) -> str:
    """The system prompt at `minute` minutes past 7:40, with the rooms in this order. `marked`: with <volatile> around
    the clock and the states, which are all that changes from minute to minute."""
    now = _now(minute)
    lines = [
        f"<volatile>\n{now}\n</volatile>" if marked else now,
        f"You are the voice assistant of a family home with these rooms: {', '.join(rooms)}.",
        _RULES,
        "These are the devices, and what can be done with each:",
        *(f"- {room}, {device}: {_ability(device)}" for room in rooms for device in ROOMS[room]),
    ]
    return "\n".join(lines)


def _now(minute: int) -> str:
    return (
        f"The time is {7 + (40 + minute) // 60:02}:{(40 + minute) % 60:02}. Today is Saturday, 14 March 2026.\n"
        f"Outside it is {6.3 + minute / 10:.1f} degrees with {71 - minute} percent humidity; it does not rain.\n"
        f"The sun delivers {420 + 35 * minute} watts, the home takes {610 + 15 * minute} watts, "
        f"and the car is charged to {57 + minute} percent.\n"
        f"Anna and Jonas are at home. The front door is locked, for {19 + minute} minutes now. "
        f"In the kitchen it is {20.4 + minute / 10:.1f} degrees, in the study {19.1 + minute / 10:.1f}.\n"
        f"The lights in the kitchen and in the hall are on; the dishwasher needs {48 - minute} more minutes."
    )


def _ability(device: str) -> str:
    return _ABILITIES[device.rpartition(" ")[-1]]
