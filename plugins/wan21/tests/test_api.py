"""What other plugins build on."""

import subprocess
import sys

from lightx2v_wan21 import api


def test_every_name_is_there():
    assert len(set(api.__all__)) == len(api.__all__)
    for name in api.__all__:
        assert getattr(api, name) is not None


def test_planning_needs_no_torch():
    """Only what is asked for is imported."""
    code = "import sys, lightx2v_wan21.api, lightx2v_wan21.plugin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
