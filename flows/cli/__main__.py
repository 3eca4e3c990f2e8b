"""``python -m flows.cli``: the console script where none is installed, as in a Ray job."""

from flows.cli.main import main

main()
