"""The loop of every training script: runs to a number of steps or a time limit, and saves its state to resume later.

All random numbers of step n follow from the seed and n, so an interrupted and resumed run gives the same weights as an
uninterrupted one. The log is next to the state, as JSON: settings, versions, losses, seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from attrs import validators as v
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lightx2v_core import __version__
from lightx2v_core.runtime.video import write_bytes
from optimizer import KEPT, Muon
from sizes import Sizes


@frozen(kw_only=True)
class Settings:
    """The settings of every training script."""

    sizes: Sizes
    seed: int = 0
    #: number of steps of the whole run; the learning rates decay to a fiftieth by the last
    steps: int = field(default=20000, validator=v.ge(1))
    #: time limit in minutes; 0: none
    minutes: float = field(default=0.0, validator=v.ge(0))
    batch: int = field(default=32, validator=v.ge(1))
    #: learning rate of vectors and tables, for Adam
    rate: float = field(default=1e-3, validator=v.gt(0))
    #: learning rate of matrices, for Muon
    matrix_rate: float = field(default=0.02, validator=v.gt(0))
    warmup: int = 200
    #: decay of the running average, after the first steps
    average: float = field(default=0.999, validator=[v.ge(0), v.lt(1)])
    #: seconds between two saved states
    save_every: float = 300.0
    #: steps between two lines of output
    log_every: int = 50


def arguments(
    parser: argparse.ArgumentParser, *, steps: int, batch: int, rate: float, matrix_rate: float = 0.02
) -> None:
    """Add the options of ``Settings`` to a parser."""
    for name, default in (
        ("side", 48),
        ("frames", 9),
        ("vae", 16),
        ("dim", 128),
        ("layers", 6),
        ("text", 96),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="time limit in minutes; run again to resume"
    )
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument(
        "--rate", type=float, default=rate, help="learning rate of Adam, for vectors and tables"
    )
    parser.add_argument(
        "--matrix-rate", type=float, default=matrix_rate, help="learning rate of Muon, for matrices"
    )
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder of states, latents and logs")


def settings_from(args: argparse.Namespace) -> Settings:
    """Build the settings from parsed options; also sets the threads of torch."""
    torch.set_num_threads(args.threads)
    sizes = Sizes(
        side=args.side, frames=args.frames, vae=args.vae, dim=args.dim, layers=args.layers, text=args.text
    )
    return Settings(
        sizes=sizes,
        seed=args.seed,
        steps=args.steps,
        minutes=args.minutes,
        batch=args.batch,
        rate=args.rate,
        matrix_rate=args.matrix_rate,
        log_every=args.log_every,
    )


def generator(settings: Settings, step: int, purpose: int = 0) -> torch.Generator:
    """Create the random number generator of one step."""
    return torch.Generator().manual_seed(settings.seed * 1_000_003 + step * 11 + purpose)


class Run:
    """A training run: parameters, their running averages, the state of the optimizer, and the log."""

    def __init__(
        self, name: str, folder: Path, networks: Mapping[str, nn.Module], settings: Settings, **notes: Any
    ) -> None:
        """Set up the run; resumes from ``folder/name.state.safetensors`` if it exists. ``notes`` are logged.

        Raises:
            ValueError: the saved state is of other sizes or of another seed.
        """
        self.name, self.folder, self.settings = name, folder, settings
        self.trained = {
            f"{part}.{key}": parameter
            for part, network in networks.items()
            for key, parameter in network.named_parameters()
            if parameter.requires_grad
        }
        self.averages = {key: value.detach().clone() for key, value in self.trained.items()}
        self.optimizer = Muon(self.trained, rate=settings.rate, matrix_rate=settings.matrix_rate)
        self.step, self.seconds = 0, 0.0
        #: pairs of a step and the mean loss since the previous pair
        self.losses: list[list[float]] = []
        self.notes = notes
        folder.mkdir(parents=True, exist_ok=True)
        if self._state.exists():
            self._resume()

    def train(self, loss_of: Callable[[int], Tensor]) -> None:
        """Run the remaining steps. ``loss_of(step)`` draws a batch and returns its loss."""
        settings, recent = self.settings, []
        began = saved = time.monotonic()
        before, first = self.seconds, self.step
        while self.step < settings.steps:
            self.optimizer.schedule(self._share())
            self.optimizer.zero_grad(set_to_none=True)
            loss = loss_of(self.step)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
            self.optimizer.step()
            self._average()
            recent.append(float(loss.detach()))
            if not math.isfinite(recent[-1]):
                raise FloatingPointError(f"{self.name}: the loss of step {self.step} is {recent[-1]}")
            self.step += 1
            now = time.monotonic()
            self.seconds = before + now - began
            if self.step % settings.log_every == 0 or self.step == settings.steps:
                self.losses.append([self.step, sum(recent) / len(recent)])
                each = (now - began) / max(self.step - first, 1)
                print(f"{self.name} {self.step}/{settings.steps} loss {self.losses[-1][1]:.5f}, {each:.2f} s a step",
                      flush=True)  # fmt: skip
                recent = []
            if now - saved > settings.save_every:
                self.save()
                saved = now
            if settings.minutes and now - began > 60 * settings.minutes:
                print(
                    f"{self.name}: stopped after {settings.minutes:g} minutes; run again to resume",
                    flush=True,
                )
                break
        self.save()

    def save(self) -> None:
        """Write the state and the log atomically."""
        tensors = {f"trained.{key}": value.detach() for key, value in self.trained.items()}
        tensors |= {f"average.{key}": value for key, value in self.averages.items()}
        for key, parameter in self.trained.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{kind}.{key}"] = value
        log = self._log()
        data = save(
            {key: value.cpu().contiguous() for key, value in tensors.items()}, {"log": json.dumps(log)}
        )
        write_bytes(self._state, data)
        write_bytes(self.folder / f"{self.name}.json", (json.dumps(log, indent=1) + "\n").encode())

    def use_averages(self) -> None:
        """Replace the parameters by their running averages, which are published."""
        with torch.no_grad():
            for key, parameter in self.trained.items():
                parameter.copy_(self.averages[key])

    @property
    def _state(self) -> Path:
        return self.folder / f"{self.name}.state.safetensors"

    def _share(self) -> float:
        """Compute the factor of the learning rates: warm-up, then linear decay to a fiftieth."""
        falling = 1 - 0.98 * self.step / self.settings.steps
        return min(1.0, (self.step + 1) / self.settings.warmup) * falling

    def _average(self) -> None:
        stays = min(self.settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, parameter in self.trained.items():
                self.averages[key].lerp_(parameter, 1 - stays)

    def _settings(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share with the previous one."""
        sizes = self.settings.sizes
        names = ("side", "frames", "vae", "dim", "layers", "text")
        return {"seed": self.settings.seed, "batch": self.settings.batch, "steps": self.settings.steps,
                "rate": self.settings.rate, "matrix_rate": self.settings.matrix_rate,
                **{name: getattr(sizes, name) for name in names}}  # fmt: skip

    def _log(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "settings": self._settings(),
            "notes": self.notes,
            "parameters": sum(value.numel() for value in self.trained.values()),
            "steps_done": self.step,
            "seconds": round(self.seconds, 1),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "lightx2v_core": __version__,
            "losses": [[int(step), round(loss, 6)] for step, loss in self.losses],
        }

    def _resume(self) -> None:
        with safe_open(self._state, "pt") as file:
            log = json.loads(file.metadata()["log"])
            if log["settings"] != self._settings():
                changed = [k for k, value in self._settings().items() if log["settings"].get(k) != value]
                raise ValueError(
                    f"{self._state} was trained with other settings ({', '.join(changed)}); use the same ones to "
                    "resume, or another --work folder"
                )
            kept: dict[str, dict[str, Tensor]] = {}
            for name in file.keys():  # noqa: SIM118  not a dict
                kind, key = name.split(".", 1)
                kept.setdefault(kind, {})[key] = file.get_tensor(name)
        with torch.no_grad():
            for key, parameter in self.trained.items():
                parameter.copy_(kept["trained"][key])
                self.averages[key].copy_(kept["average"][key])
                state = {kind: kept[kind][key] for kind in KEPT if key in kept.get(kind, {})}
                for kind, value in state.items():  # Adam's step count stays on the CPU
                    self.optimizer.state[parameter][kind] = (
                        value if value.ndim == 0 else value.to(parameter.device)
                    )
        self.step, self.seconds = log["steps_done"], log["seconds"]
        self.losses = [list(map(float, entry)) for entry in log["losses"]]
        print(f"{self.name}: resuming from step {self.step}", flush=True)


def averages(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the running averages of a training run, by the names of network and parameter.

    Raises:
        FileNotFoundError: there is no such run in this folder.
    """
    state = folder / f"{name}.state.safetensors"
    if not state.exists():
        raise FileNotFoundError(f"{state} is missing: run train_{name}.py first, with the same --work")
    with safe_open(state, "pt") as file:
        return {
            key.removeprefix("average."): file.get_tensor(key)
            for key in file.keys()  # noqa: SIM118  not a dict
            if key.startswith("average.")
        }


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Select the tensors of one network."""
    return {
        key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")
    }
