"""The JSON Schema for editors: it accepts what the program accepts, and knows the installed plugins."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightx2v_core.config import jsonc
from lightx2v_core.config.load import default_config, load_config
from lightx2v_core.config.schema import schema
from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.errors import ConfigError

jsonschema = pytest.importorskip("jsonschema")

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = sorted((Path(__file__).parent / "legacy_corpus").glob("*.json"))
#: refused for what several keys say together, which a schema of single keys does not know
TOGETHER = {
    "refused_contradiction", "refused_file_alone", "refused_lazy", "refused_one_side", "refused_quantized_alone",
    "refused_scheme_alone",
}  # fmt: skip


@pytest.fixture(scope="module")
def checker() -> Any:
    found = schema(load_plugins(environ={}))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(json.loads(json.dumps(found)))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus(checker: Any, path: Path) -> None:
    accepted = path.read_text(encoding="utf-8").startswith("// accepted") or path.stem in TOGETHER
    problems = [error.message for error in checker.iter_errors(jsonc.read(path))]
    assert bool(problems) != accepted, problems


GOOD: list[dict[str, Any]] = [
    {},
    {"$schema": "./x.json", "model_path": "x", "task": None, "dtype": "bfloat16"},
    {"attention": "sdpa", "scheduler": ["euler", "unipc"], "offloader": {"use": "none"}},
    {"attention": ["flash-attn3?", "core/sdpa"]},
    {"scheduler": {"use": "distill", "options": {"distill": {"denoising_steps": [1000, 500]}}}},
    {"scheduler": {"use": "distill", "options": {"*": {"denoising_steps": [1000]}}}},
    {"sampling": {"size": "832x480", "guide_scale": 5, "steps": 4, "fps": 24.0}},
    {"sampling": {"size": [832, 480], "guide_scale": [4, 3], "steps": None}},
    {
        "components": {
            "dit": {"path": "x", "precision": "fp8", "offloader": "none", "assets": {"tokenizer": "t"}}
        }
    },
    {"loras": ["a.safetensors", {"path": "b", "strength": 0.5, "alpha": None}]},
    {"memory": {"vram_limit": "24GB", "ram_limit": 1000000000}},
    {"infer_steps": 4, "sampling": {"shift": 5}, "target_height": None},
]
BAD: list[dict[str, Any]] = [
    {"promt": "x"},
    {"dtype": "bfloat"},
    {"attention": "sdpaa"},
    {"attention": {"use": ["sdpa"], "option": {}}},
    {"scheduler": {"use": "distill", "options": {"distill": {"denoising_step": [1000]}}}},
    {"scheduler": {"use": "euler", "options": {"euler": {"grid": "x"}}}},
    {"sampling": {"steps": 0}},
    {"sampling": {"steps": 4.5}},
    {"sampling": {"size": "832"}},
    {"sampling": {"size": [832, 480, 3]}},
    {"sampling": {"size": [832, 0]}},
    {"sampling": {"shift": 0}},
    {"sampling": {"guide_scale": -1}},
    {"components": {"dit": {"file": "x"}}},
    {"loras": [{"strength": 1}]},
    {"loras": "x"},
    {"output": {"crf": 52}},
    {"infer_steps": "4"},
    {"mm_config": {"mm_typ": "Default"}},
    {"self_attn_1_type": "flash_atn3"},
    {"parallel": {"seq_p_size": 4}},
]


@pytest.mark.parametrize("data", GOOD, ids=repr)
def test_what_is_right(checker: Any, data: dict[str, Any]) -> None:
    assert [error.message for error in checker.iter_errors(data)] == []
    load_config(data)


@pytest.mark.parametrize("data", BAD, ids=repr)
def test_what_is_wrong(checker: Any, data: dict[str, Any]) -> None:
    assert not checker.is_valid(data)


def test_the_defaults_are_right(checker: Any) -> None:
    data = json.loads(json.dumps(default_config()))
    assert [error.message for error in checker.iter_errors(data)] == []


def test_it_never_refuses_what_the_program_takes(checker: Any) -> None:
    for data in BAD:
        try:
            load_config(data)
        except ConfigError:
            continue
        # what the program finds out when it looks for implementations and their options
        assert {"attention", "scheduler"} & set(data)


def test_keys_are_described(checker: Any) -> None:
    properties = checker.schema["properties"]
    for name, found in properties.items():
        assert name == "$schema" or found.get("description") or "$ref" in found, name
    assert properties["infer_steps"]["description"] == "number of denoising steps; sets sampling.steps"
    assert properties["vae_pth"]["description"].startswith("older name of vae_path")
    assert properties["rope_type"]["deprecated"] is True


def test_the_command(checker: Any) -> None:
    line = [sys.executable, "-m", "lightx2v_core", "config", "schema"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["properties"].keys() == checker.schema["properties"].keys()


def test_options_of_plugins_are_known(checker: Any) -> None:
    pytest.importorskip("lightx2v_wan21", reason="needs the Wan2.1 plugin")
    assert checker.is_valid({"model": {"options": {"wan2.1": {"tiny_vae": True}, "*": {"vae_tile": 256}}}})
    assert checker.is_valid({"model": "wan2.1_distill"})
    assert not checker.is_valid({"model": {"options": {"wan2.1": {"tiny": True}}}})
    assert not checker.is_valid({"model": {"options": {"*": {"tiny": True}}}})


def test_the_reference_is_current() -> None:
    path = REPOSITORY / "docs" / "config_reference.py"
    spec = importlib.util.spec_from_file_location("config_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8")
    assert module.folded(module.reference()) == written, "run python docs/config_reference.py"
