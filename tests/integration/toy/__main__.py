"""Runs the command line with one more pipeline."""

from flows.cli.main import main
from toy import add_to_catalog

add_to_catalog()
main()
