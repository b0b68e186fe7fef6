"""Entry point of ``python -m lightx2v_core``, the same as ``lightx2v-core``."""

from lightx2v_core.cli import main

if __name__ == "__main__":
    main()
