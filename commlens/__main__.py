"""`python -m commlens` is the `commlens` command."""

from commlens.cli.app import main

main()
