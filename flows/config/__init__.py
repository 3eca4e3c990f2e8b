"""Configuration: defaults < YAML < ``--set a.b=c``.

locations.py    default folders for storage and state
run_id.py       one id for all processes of a run
environment.py  environment variables for the length of a block
loopback.py     a machine that reaches itself, past proxies
specs.py        compute, registry and notification settings, the same for every pipeline
pipeline.py     base class of a pipeline's configuration
load.py         YAML file and overrides to a validated configuration
reference.py    the configuration reference in Markdown, and commented YAML templates
"""
