"""The suites can be run as on a lesser processor: tox passes on what narrows torch and oneDNN, and they follow it."""

from __future__ import annotations

import configparser
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOX = Path(__file__).resolve().parent.parent / "tox.ini"
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")

#: loads and stores one small tensor in oneDNN's layout, after which oneDNN has said what it runs on
TO_ONEDNN = "import torch; torch.ones(16, 16).to_mkldnn().to_dense()"

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the sets of x86 processors")


def test_tox_passes_them_on_in_every_environment() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(TOX, encoding="utf-8")
    assert set(VARIABLES) < set(parser["testenv"]["pass_env"].split())
    for section in parser.sections():
        if section != "testenv" and "pass_env" in parser[section]:
            assert "{[testenv]pass_env}" in parser[section]["pass_env"], section
        for name in VARIABLES:
            assert name not in parser[section].get("set_env", ""), section


def said(source: str, **variables: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source],
        env={**env, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def capability(**variables: str) -> str:
    return said("import torch; print(torch.backends.cpu.get_cpu_capability())", **variables).strip()


def instruction_set(**variables: str) -> str:
    """What oneDNN says that it runs on, such as ``Intel AVX2``."""
    found = re.search(
        r"^onednn_verbose,.*\bcpu,isa:(.+)$", said(TO_ONEDNN, ONEDNN_VERBOSE="1", **variables), re.M
    )
    assert found, "oneDNN has not said what it runs on"
    return found[1]


def test_torch_is_as_narrow_as_this_run_asks() -> None:
    """Checked in this process, so that the tests in it have run on the requested instruction set."""
    import torch

    asked = os.environ.get(VARIABLES[0])
    runs_on = torch.backends.cpu.get_cpu_capability()
    assert runs_on == (asked.upper() if asked else capability())
    assert capability(**{name: os.environ[name] for name in VARIABLES if name in os.environ}) == runs_on


#: names in oneDNN's log of the instruction sets it can be limited to; for wider sets it logs more than the name
SETS = {"SSE41": "Intel SSE4.1", "AVX": "Intel AVX", "AVX2": "Intel AVX2"}


@x86
def test_onednn_is_as_narrow_as_this_run_asks() -> None:
    asked = os.environ.get(VARIABLES[1], "").upper()
    if asked not in SETS:
        pytest.skip(f"{VARIABLES[1]} does not say that oneDNN is to be narrow here")
    assert instruction_set(**{VARIABLES[1]: asked}) == SETS[asked]


@x86
def test_torch_and_onednn_follow() -> None:
    assert capability(ATEN_CPU_CAPABILITY="default") == "DEFAULT"
    assert instruction_set(ONEDNN_MAX_CPU_ISA="SSE41") == SETS["SSE41"]
    if capability() != "DEFAULT":
        assert capability(ATEN_CPU_CAPABILITY="avx2") == "AVX2"
        assert instruction_set(ONEDNN_MAX_CPU_ISA="AVX2") == SETS["AVX2"]
