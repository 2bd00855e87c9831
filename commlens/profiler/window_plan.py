"""When deep windows are wanted: the text of COMMLENS_WINDOW."""

from __future__ import annotations

from typing import Final, NamedTuple

VARIABLE: Final = "COMMLENS_WINDOW"
STEPS: Final = 3
MOST_STEPS: Final = 1000
MOST: Final = 64  # windows of a run that come by plan: the files of a long job must not fill its disk


class Plan(NamedTuple):
    """Windows of `steps` steps, from every step in `at` on and from every multiple of `every` (0: none)."""

    steps: int
    every: int
    at: tuple[int, ...]

    def next(self, after: int) -> int | None:
        """The first step later than `after` that begins a window, None where there is none."""
        later = [step for step in self.at if step > after]
        if self.every and after // self.every < MOST:
            later.append((after // self.every + 1) * self.every)
        return min(later, default=None)


def read_plan(text: str) -> Plan:
    """The plan that a text such as "steps=3,every=500" or "at=20,at=400" asks for; "20" is "at=20".

    Raises:
        ValueError: It asks for nothing, or for something else; the message is a clause.
    """
    steps, every, at = STEPS, 0, []
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, number = part.rpartition("=")
        value = int(number) if number.strip().isdecimal() else 0
        if value < 1:
            raise ValueError(f"{part} is not of the form steps=3, every=500 or at=20, with a number from 1 on")
        match name.strip():
            case "steps" if value <= MOST_STEPS:
                steps = value
            case "every":
                every = value
            case "at" | "":
                at.append(value)
            case _:
                raise ValueError(f"{part} is none of steps (up to {MOST_STEPS}), every and at")
    if not at and not every:
        raise ValueError("it says neither every= nor at=")
    if every and every <= steps:
        raise ValueError(f"windows of {steps} steps do not fit between steps that are {every} apart")
    return Plan(steps, every, tuple(sorted(set(at))))
