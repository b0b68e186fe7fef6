"""Prompts for scenes: plain sentences, English and Chinese, in several phrasings.

Colour, shape, direction and background are always mentioned; size, speed and the type of background may be omitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Literal

from world import Companion, Scene

Language = Literal["en", "zh"]

_MOVES: Mapping[Language, Mapping[str, tuple[str, ...]]] = {
    "en": {
        "right": ("moves{speed} to the right", "goes{speed} right", "slides{speed} from left to right"),
        "left": ("moves{speed} to the left", "goes{speed} left", "slides{speed} from right to left"),
        "up": ("moves{speed} up", "rises{speed}", "goes{speed} to the top"),
        "down": ("moves{speed} down", "sinks{speed}", "goes{speed} to the bottom"),
        "still": ("stands still", "does not move", "stays where it is"),
    },
    "zh": {
        "right": ("{speed}向右移动", "{speed}从左往右走"),
        "left": ("{speed}向左移动", "{speed}从右往左走"),
        "up": ("{speed}向上移动", "{speed}升起来"),
        "down": ("{speed}向下移动", "{speed}落下来"),
        "still": ("静止不动", "停在原处"),
    },
}
_WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "slow": " slowly",
        "fast": " quickly",
        "plain": " plain",
        "graded": " graded",
        **{name: name for name in "red green blue yellow purple white black grey".split()},
        **{name: name for name in "circle square triangle".split()},
        "small": " small",
        "large": " large",
    },
    "zh": {
        "slow": "慢慢地",
        "fast": "快速地",
        "plain": "纯色",
        "graded": "渐变",
        "red": "红色",
        "green": "绿色",
        "blue": "蓝色",
        "yellow": "黄色",
        "purple": "紫色",
        "white": "白色",
        "black": "黑色",
        "grey": "灰色",
        "circle": "圆形",
        "square": "方块",
        "triangle": "三角形",
        "small": "小的",
        "large": "大的",
    },
}
_SENTENCES: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "a{size} {colour} {shape} {moves} on a{kind} {ground} background{second}",
        "on a{kind} {ground} background, a{size} {colour} {shape} {moves}{second}",
        "a video of a{size} {colour} {shape} that {moves}; the background is{kind} {ground}{second}",
        "a{kind} {ground} background, and a{size} {colour} {shape} which {moves}{second}",
    ),
    "zh": (
        "一个{size}{colour}的{shape}在{kind}{ground}背景上{moves}{second}",
        "{kind}{ground}的背景，一个{size}{colour}{shape}{moves}{second}",
        "在{kind}{ground}背景前，{size}{colour}{shape}{moves}{second}",
    ),
}
_SECOND: Mapping[Language, tuple[str, ...]] = {
    "en": (", with a {colour} {shape} beside it", ", and there is a {colour} {shape} too"),
    "zh": ("，旁边有一个{colour}的{shape}", "，还有一个{colour}{shape}"),
}
#: probability of mentioning size, speed or type of background
SAID = 0.6


def prompt(scene: Scene, seed: int, *, language: Language | None = None) -> str:
    """Write a sentence for a scene; the same seed gives the same one. Without ``language`` a third are Chinese."""
    random = Random(f"prompt {seed}")
    drawn: Language = "zh" if random.random() < 1 / 3 else "en"
    spoken = language or drawn
    words = _WORDS[spoken]
    size, speed, kind = (
        words[name] if random.random() < SAID else "" for name in (scene.size, scene.speed, scene.kind)
    )
    return random.choice(_SENTENCES[spoken]).format(
        size=size,
        kind=kind,
        colour=words[scene.colour],
        shape=words[scene.shape],
        ground=words[scene.ground],
        moves=random.choice(_MOVES[spoken][scene.direction]).format(speed=speed),
        second=_second(scene.second, spoken, random),
    )


def plain_prompt(scene: Scene) -> str:
    """Write the first English phrasing, without optional attributes."""
    words, move = _WORDS["en"], _MOVES["en"][scene.direction][0].format(speed="")
    return _SENTENCES["en"][0].format(
        size="",
        kind="",
        colour=words[scene.colour],
        shape=words[scene.shape],
        ground=words[scene.ground],
        moves=move,
        second="" if scene.second is None else _SECOND["en"][0].format(**_named(scene.second, "en")),
    )


def vocabulary() -> tuple[str, ...]:
    """List every English word and every Chinese term that a prompt can contain, in a fixed order.

    A Chinese comma is not among them: the tokenizer's normalization converts it to a plain one.
    """
    english = " ".join(
        (
            *_WORDS["en"].values(),
            *(move.format(speed="") for moves in _MOVES["en"].values() for move in moves),
            *(_blank(text) for text in (*_SENTENCES["en"], *_SECOND["en"])),
        )
    )
    chinese = [
        *_WORDS["zh"].values(),
        *(move.format(speed="") for moves in _MOVES["zh"].values() for move in moves),
        *(
            piece
            for text in (*_SENTENCES["zh"], *_SECOND["zh"])
            for piece in _blank(text).replace("，", " ").split()
        ),
    ]
    signs = ",;"
    words = [word for sign in english.split() for word in [sign.strip(signs)] if word]
    return tuple(dict.fromkeys([*words, *signs, *chinese]))


def _second(second: Companion | None, language: Language, random: Random) -> str:
    if second is None:
        return ""
    return random.choice(_SECOND[language]).format(**_named(second, language))


def _named(second: Companion, language: Language) -> dict[str, str]:
    words = _WORDS[language]
    return {"colour": words[second.colour], "shape": words[second.shape]}


def _blank(text: str) -> str:
    """Replace each placeholder of a template by a space."""
    parts = text.replace("}", "{").split("{")
    return " ".join(parts[::2])
