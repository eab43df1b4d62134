"""`python -m edgewise`, and the `edgewise` command."""

import sys


def main() -> None:
    """The command line, with a word for Ctrl-C before it has even been imported."""
    try:
        from edgewise.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("edgewise: interrupted; nothing was written\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
