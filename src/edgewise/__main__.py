"""`python -m edgewise`, and the `edgewise` command."""

import sys


def main() -> None:
    """The command line, with a word for Ctrl-C before it has even been imported."""
    try:
        from edgewise.cli import main as run
        from edgewise.cli.signals import deaf
    except KeyboardInterrupt:
        sys.stderr.write("edgewise: interrupted; nothing was written\n")
        sys.exit(130)
    try:
        run()
    finally:
        deaf()


if __name__ == "__main__":
    main()
