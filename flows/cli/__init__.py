"""``unetflow``: the command line. Results go to stdout, everything else to stderr.

base.py        the application, options that commands share, output of results
pipelines.py   demo, run, and one command per stage
plan.py        plan
search.py      search
ablate.py      ablate
config.py      templates and the configuration reference
jobs.py        submit, status, cancel
schedule.py    serve
models.py      predict, models, champion
explain.py     explain
importing.py   import
doctor.py      doctor
verify.py      verify
gc.py          gc
last_words.py  a line where the process is killed
tables.py      results as text
main.py        entry point: errors to messages and exit codes
"""

from __future__ import annotations

from flows.cli.main import main, run_command

__all__ = ["main", "run_command"]
