"""The command `vadpipe`, of which Ctrl-C is told in a line also while modules are imported."""

from vadpipe.errors import exit_code_2


def main() -> None:
    """Run the command line."""
    with exit_code_2():
        from vadpipe.cli import app

        app()


if __name__ == "__main__":
    main()
