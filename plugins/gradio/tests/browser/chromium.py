"""Installs Chromium and its driver when they are missing and this machine's apt can: ``python chromium.py``.

Without them the tests of the page in a browser are skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

#: with a font for Chinese, without which its characters are boxes of another width
PACKAGES = ("chromium", "chromium-driver", "fonts-wqy-microhei")


def main() -> None:
    """Install the missing packages; never fails, but prints a reason."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        sys.stderr.write(
            "no Chromium, and no permission to install it: the tests in a browser will be skipped\n"
        )
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *command], env=env, capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(f"apt-get {command[0]} failed, so the tests in a browser will be skipped:\n")
            sys.stderr.write(done.stderr[-1000:])
            return


if __name__ == "__main__":
    main()
