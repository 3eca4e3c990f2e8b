"""Checks of an installation, its servers, storage and machine, and the commands that fix what is wrong.

examine.py   all checks, one after the other
finding.py   one finding
machine.py   versions, storage, CPUs, GPUs, files with secrets
servers.py   Prefect, MLflow and Ray
"""
