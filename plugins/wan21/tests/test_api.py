"""The API for other plugins."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightx2v_wan21 import api


def test_every_name_of_the_stub_is_there():
    lines = Path(api.__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines()
    imports = [line for line in lines if line.startswith(("from ", "import "))]
    assert [
        line.rpartition(" ")[2] for line in sorted(imports, key=lambda line: line.split()[-1])
    ] == api.__all__
    assert len(set(api.__all__)) == len(api.__all__)
    for name in api.__all__:
        assert getattr(api, name) is not None
    assert set(api.__all__) <= set(dir(api))


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="'lightx2v_wan21.api' has no attribute 'Vace'"):
        _ = api.Vace


def test_planning_needs_no_torch():
    """Only the requested names are imported."""
    code = "import sys, lightx2v_wan21.api, lightx2v_wan21.plugin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
