"""Checks in a fresh interpreter that the entry module of a plugin imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

#: packages that may only be imported inside ``build`` and ``unusable``
HEAVY = (
    "torch", "transformers", "numpy", "xformers", "vllm", "PIL", "av", "tokenizers", "cattrs", "diffusers", "triton",
    "jax", "tensorflow", "scipy", "pandas", "cv2", "gradio", "matplotlib", "accelerate", "onnxruntime", "flash_attn",
    "sageattention", "torchao", "gguf",
)  # fmt: skip

_MARK = "heavy imports:"


def heavy_imports(
    code: str,
    *,
    forbidden: Sequence[str] = HEAVY,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> list[str]:
    """List the ``forbidden`` packages that ``code`` imports in a fresh interpreter.

    Raises ``AssertionError`` if the code fails; ``SystemExit(0)`` counts as success.
    """
    # imports during interpreter start-up (a .pth file, a coverage hook) do not count
    program = (
        "import atexit, sys\n"
        f"_before, _wanted = set(sys.modules), {tuple(forbidden)!r}\n"
        f"atexit.register(lambda: print({_MARK!r}, "
        "*(name for name in _wanted if name in sys.modules and name not in _before)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=None if env is None else dict(env),
    )
    assert done.returncode == 0, f"status {done.returncode} of\n{code}\n{done.stdout}{done.stderr}"
    return done.stdout.rpartition(_MARK)[2].split()


def assert_light_import(
    module: str, *, forbidden: Sequence[str] = HEAVY, env: Mapping[str, str] | None = None
) -> None:
    """Fail if importing ``module`` imports one of the ``forbidden`` packages."""
    heavy = heavy_imports(f"import {module}", forbidden=forbidden, env=env)
    assert not heavy, (
        f"import {module} imports {', '.join(heavy)}; import it inside build and unusable instead"
    )
