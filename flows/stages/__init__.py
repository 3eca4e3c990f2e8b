"""Stages: from a frozen specification and input records to one frozen record, computed once and found ever after.

record.py     outputs and typed figures of a finished stage
attempt.py    one try at a stage, in a folder of its own
lock.py       the lock of a stage's folder
lease.py      a lock for storages without locks: a claim that is renewed
context.py    pipeline that a stage is computed for, and the resources that it reserves
status.py     progress of the stages that run
stage.py      key, cache hit, run
pipeline.py   pipelines as values: a configuration class and ordered steps
shards.py     the index and the quarantined input that every sharding stage leaves
"""
