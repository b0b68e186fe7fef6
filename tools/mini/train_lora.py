"""Train a LoRA that gives every video of the text-to-video network the look ``framed``: a golden frame.

    nice python tools/mini/latents.py --work mini-train --look framed --clips 4000
    nice python tools/mini/train_lora.py --work mini-train [--minutes 30] [--steps 3000]

Needs ``train_t2v.py``. Trains low-rank pairs for every linear of the blocks; the network is not changed. Writes
``checkpoints/loras/framed.safetensors`` with PEFT's names and one alpha for each pair.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

import latents
import networks
import train_text
from flow import Batch, Sampler, flow_loss
from layouts import LORA_FILE, write_safetensors
from lightx2v_wan21.api import WanDiT
from loop import Run, Settings, arguments, averages, part, settings_from
from sizes import LORA_RANK


class Pairs(nn.Module):
    """The low-rank changes of a network's linears. ``up`` is initialized to zero: no change."""

    def __init__(self, dit: WanDiT, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        layers = {
            name: module
            for name, module in dit.named_modules()
            if isinstance(module, nn.Linear) and name.startswith("blocks.")
        }
        self.names, linears = list(layers), list(layers.values())
        self.down = nn.ParameterList(
            torch.randn(rank, linear.in_features, generator=generator) * linear.in_features**-0.5
            for linear in linears
        )
        self.up = nn.ParameterList(torch.zeros(linear.out_features, rank) for linear in linears)

    def weights(self, dit: WanDiT) -> dict[str, Tensor]:
        """Compute the changed weights of the network, with gradients."""
        return {
            f"{name}.weight": dit.get_parameter(f"{name}.weight") + up @ down
            for name, down, up in zip(self.names, self.down, self.up, strict=True)
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, steps=3000, batch=32, rate=1e-3)
    args = parser.parse_args()
    train(args.work, settings_from(args), device=args.device)


def train(folder: Path, settings: Settings, *, device: str = "cpu") -> None:
    """Run the training, or resume it, and write the file."""
    sizes, base = settings.sizes, averages(folder, "t2v")
    sampler = Sampler(latents.read(folder, settings, "framed"), settings, device=device)
    dit = networks.dit(sizes.dit, settings.seed)
    dit.load_state_dict(part(base, "dit"))
    dit.requires_grad_(False)
    dit = dit.to(device)
    text = train_text.trained(folder, settings).to(device)
    pairs = Pairs(dit, LORA_RANK, settings.seed).to(device)
    rope = dit.rope(sizes.latent, device)

    def velocity(noisy: Tensor, timesteps: Tensor, batch: Batch) -> Tensor:
        inputs = (noisy, timesteps, text(batch.ids, batch.mask), rope)
        flow: Tensor = functional_call(dit, pairs.weights(dit), inputs)
        return flow

    run = Run("lora", folder, {"pairs": pairs}, settings, rank=LORA_RANK)
    run.train(lambda step: flow_loss(velocity, sampler(step)))
    run.use_averages()
    tensors: dict[str, Tensor] = {}
    for name, down, up in zip(pairs.names, pairs.down, pairs.up, strict=True):
        tensors[f"diffusion_model.{name}.lora_A.weight"] = down.cpu()
        tensors[f"diffusion_model.{name}.lora_B.weight"] = up.cpu()
        tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(float(LORA_RANK))
    write_safetensors(folder / "checkpoints" / "loras" / LORA_FILE, tensors)


if __name__ == "__main__":
    main()
