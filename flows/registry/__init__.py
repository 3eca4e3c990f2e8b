"""MLflow: tracking of runs, registration behind a gate, versions and champions.

tracking.py         client, runs, parameters and metrics
run_logger.py       a training's metrics on their way to its run, which nobody waits for
models.py           registered versions, aliases, promotion and rollback
bundle.py           what prediction needs to know beside the weights, as JSON
input_rows.py       rows of what a registered model is given
candidate.py        a model that is to be registered: its origin, its scores, how to compare it
champion.py         the champion's files, and comparisons with it
gate.py             the decision whether a version becomes champion
decision.py         the champion measured, the gate asked, the alias set
comparison_page.py  page of the decision: scores of both versions
register.py         a stage's result to a registered version
"""
