"""Pipelines as ordered, retryable stages: on a laptop, on a Ray cluster, on a schedule; to a registered model.

Layers, lower ones first; no import runs back up:

installation           where the code lies, and which version it is
metrics                every metric with title, unit, direction and meaning: the one table
config                 configuration that every pipeline has
notification           messages to the notification targets
stages                 stage, attempt, record; pipelines as values
cluster                Ray: connection, actors, jobs
report                 blocks and charts of the HTML reports
registry               MLflow: tracking, gate, registration, versions and champions
training               any training on Ray Train
sharding               stages that shard raw data for several pipelines
tuning                 search over the settings of a training, on Ray Tune
pipelines              one folder per pipeline, and the catalog of them
doctor                 what is wrong with an installation and its servers
cleanup                what nobody needs any more
verification           everything stored against its digests
running                execution, Prefect flows, jobs, schedules, prediction, notification
ablation               variants of one configuration, compared
cli                    the command line
"""
