"""The program `dav2`, and `python -m dav2_jax`: `cli.main`, and no traceback for Ctrl-C while that is imported."""

import sys


def main() -> int:
    try:
        from dav2_jax.cli import main as cli
    except KeyboardInterrupt:
        print("dav2: interrupted", file=sys.stderr)
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
