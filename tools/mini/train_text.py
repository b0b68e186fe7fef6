"""Train the text encoder to know what a prompt says, before a network has to learn to draw it.

    nice python tools/mini/train_text.py --work mini-train

Every token of a prompt has to tell every attribute of the scene: then whatever the transformer attends to tells it what
to draw, and it does not have to find out by drawing. Attributes that a prompt leaves out are guessed, at even odds.
Afterwards the encoder stays as it is.

Shape legend: B batch, S tokens, D text width.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import networks
from flow import tokenizer
from lightx2v_wan21.api import Umt5Encoder
from loop import Run, Settings, arguments, averages, part, settings_from
from prompts import prompt
from sizes import TEXT_LENGTH
from world import COLOURS, DIRECTIONS, GROUNDS, KINDS, SHAPES, SIZES, SPEEDS, Scene, scenes

#: what an attribute can be, and what it is in a scene
_ATTRIBUTES: Mapping[str, tuple[tuple[str, ...], Callable[[Scene], str]]] = {
    "colour": (COLOURS, lambda scene: scene.colour),
    "shape": (SHAPES, lambda scene: scene.shape),
    "direction": (DIRECTIONS, lambda scene: scene.direction),
    "size": (SIZES, lambda scene: scene.size),
    "speed": (SPEEDS, lambda scene: scene.speed),
    "ground": (GROUNDS, lambda scene: scene.ground),
    "kind": (KINDS, lambda scene: scene.kind),
    "second_colour": (("none", *COLOURS), lambda scene: scene.second.colour if scene.second else "none"),
    "second_shape": (("none", *SHAPES), lambda scene: scene.second.shape if scene.second else "none"),
}
#: scenes that are drawn from
_SCENES = 20000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=1500, batch=64, rate=1e-3)
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device)


def train(folder: Path, settings: Settings, *, device: str = "cpu") -> None:
    """Train, or go on; what is trained stays in the state of the run, see ``trained``."""
    drawn = list(islice(scenes(settings.seed, split="train"), _SCENES))
    reader = tokenizer()
    text = networks.umt5(settings.sizes.umt5(networks.tokenizer().get_vocab_size()), settings.seed)
    heads = nn.Linear(settings.sizes.text, sum(len(values) for values, _of in _ATTRIBUTES.values()))
    networks.begin(heads, settings.seed)
    text, heads = text.to(device), heads.to(device)

    def loss_of(step: int) -> Tensor:
        random = Random(f"text {settings.seed} {step}")
        batch = [random.choice(drawn) for _ in range(settings.batch)]
        ids, mask = reader.encode([prompt(scene, random.randrange(10**9)) for scene in batch], TEXT_LENGTH)
        said_BSA = heads(networks.texts(text, ids.to(device), mask.to(device)))
        return attribute_loss(said_BSA, mask.to(device), batch)

    Run("text", folder, {"text": text, "heads": heads}, settings).train(loss_of)


def trained(folder: Path, settings: Settings) -> Umt5Encoder:
    """The trained encoder. ``FileNotFoundError`` when there is none."""
    text = networks.umt5(settings.sizes.umt5(networks.tokenizer().get_vocab_size()), settings.seed)
    text.load_state_dict(part(averages(folder, "text"), "text"))
    return text.requires_grad_(False)


def attribute_loss(said_BSA: Tensor, mask_BS: Tensor, batch: list[Scene]) -> Tensor:
    """Mean cross entropy of all attributes at all tokens of the prompts, in nats; ``A`` are the choices of all
    attributes side by side."""
    sizes = [len(values) for values, _of in _ATTRIBUTES.values()]
    losses = []
    for (values, of), choices in zip(_ATTRIBUTES.values(), torch.split(said_BSA, sizes, dim=-1), strict=True):
        wanted = torch.tensor([values.index(of(scene)) for scene in batch], device=said_BSA.device)
        losses.append(
            cross_entropy(choices[mask_BS.bool()], wanted[:, None].expand_as(mask_BS)[mask_BS.bool()])
        )
    return torch.stack(losses).mean()


if __name__ == "__main__":
    main()
