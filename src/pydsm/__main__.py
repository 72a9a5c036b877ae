"""`python -m pydsm` is the `pydsm` command."""

from pydsm.cli.main import main

main()
