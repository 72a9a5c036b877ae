"""`python -m pydsm` is the `pydsm` command."""

from pydsm.cli.entry import main

main()
