"""Running pipelines: here, through Prefect, as jobs of a cluster, on a schedule; and predicting with their models.

execution.py          run or plan the steps of a pipeline, and the final record
placement.py          a stage in this process, or as a job of the cluster
prefect_settings.py   environment that Prefect reads at import; import it before Prefect
temporary_server.py   Prefect's temporary server ends with its process
automation.py         the server's rule for runs whose process died
prefect_flow.py       pipelines as Prefect flows, stages as tasks with retries
artifacts.py          what a run's page in Prefect shows
submit.py             a whole pipeline as a job: submit, status, cancel
schedule.py           pipelines on a schedule, served from this process
status.py             what runs: here, as jobs, on a schedule
exporter.py           metrics for Prometheus
notify.py             notification of failures and new champions
explain.py            what a registered model looks at, as pictures
prediction/           a registered model over many inputs
"""
