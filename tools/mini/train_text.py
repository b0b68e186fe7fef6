"""Train the text encoder to represent a prompt's attributes, before the networks learn to draw them.

    nice python tools/mini/train_text.py --work mini-train

Every token of a prompt has to predict every attribute of the scene: then the transformer finds all attributes at every
token, and does not have to learn the language itself. Attributes that a prompt omits can only be guessed. Afterwards
the encoder is frozen.

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

#: attribute -> its possible values, and its value in a scene
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
#: number of scenes to draw from
_SCENES = 20000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=1500, batch=64, rate=1e-3)
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device)


def train(folder: Path, settings: Settings, *, device: str = "cpu") -> None:
    """Run the training, or resume it; the result is in the state of the run, see ``trained``."""
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
        logits_BSA = heads(networks.texts(text, ids.to(device), mask.to(device)))
        return attribute_loss(logits_BSA, mask.to(device), batch)

    Run("text", folder, {"text": text, "heads": heads}, settings).train(loss_of)


def trained(folder: Path, settings: Settings) -> Umt5Encoder:
    """Load the trained encoder. ``FileNotFoundError`` if there is none."""
    text = networks.umt5(settings.sizes.umt5(networks.tokenizer().get_vocab_size()), settings.seed)
    text.load_state_dict(part(averages(folder, "text"), "text"))
    return text.requires_grad_(False)


def attribute_loss(logits_BSA: Tensor, mask_BS: Tensor, batch: list[Scene]) -> Tensor:
    """Compute the mean cross entropy of all attributes at all tokens of the prompts, in nats.

    ``A`` are the values of all attributes, concatenated.
    """
    sizes = [len(values) for values, _of in _ATTRIBUTES.values()]
    losses = []
    for (values, of), part_BSV in zip(
        _ATTRIBUTES.values(), torch.split(logits_BSA, sizes, dim=-1), strict=True
    ):
        target = torch.tensor([values.index(of(scene)) for scene in batch], device=logits_BSA.device)
        losses.append(
            cross_entropy(part_BSV[mask_BS.bool()], target[:, None].expand_as(mask_BS)[mask_BS.bool()])
        )
    return torch.stack(losses).mean()


if __name__ == "__main__":
    main()
