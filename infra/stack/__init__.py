"""The servers without containers: PostgreSQL, MLflow, Prefect with a worker, Ray; all on loopback, and there alone.

variables.py   secrets, ports, and what clients need, in files that nobody else may read
service.py     a process with its log: started, watched, stopped
servers.py     the servers, as services
__main__.py    ``make stack``
"""
