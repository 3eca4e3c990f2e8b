"""MLflow: tracking of runs, registration behind a gate, versions and champions.

tracking.py     client, runs, parameters and metrics
run_logger.py   a training's metrics on their way to its run, which nobody waits for
models.py       registered versions, aliases, promotion and rollback
bundle.py       what prediction needs to know beside the weights, as JSON
gate.py         the decision whether a version becomes champion
register.py     a stage's result to a registered version
"""
