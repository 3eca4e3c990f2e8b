"""Any training on Ray Train; the worker runs the loop whatever the task.

task.py            what a task must say: the network, its objective, its batches, its validation
held_out.py        the samples of an index by split and bucket; the loss of held-out samples
stage.py           the stage: plans it, selects the checkpoint
figures.py         figures that a training leaves
trainer.py         starts the workers and follows them
ray_trainer.py     Ray's trainer without the helpers that no training here uses
listener.py        passes reports on to MLflow, the history, the status
groups.py          one group of workers after the other: signals, drained nodes, growth
stop.py            requests to stop, and signals that wait for a checkpoint
worker_stop.py     how requests reach the workers
failures.py        failures of workers in words
space.py           space that checkpoints need
worker.py          what each worker runs: resume, loop, report
worker_start.py    where it starts
worker_hooks.py    what its loop reports
schedule.py        number of steps: as configured, or as many as fit into a time
progress.py        from the workers' reports to the terminal and to MLflow
checkpoints.py     usable checkpoints of all attempts, and why others are not
clock.py           what a worker's loop spends its time on
goodput.py         what a training spent its wall time on
forecast.py        how long it will still take
stall.py           alert for a training that stops making steps
time_report.py     its section of a report
history.py         where a training resumed, and what it repeated
curves.py          the reported values of a finished training
champion.py        the champion on a new version's held-out samples
initial.py         weights to start from: their origin, their meaning, what is taken of them
origins.py         where they are found
description.py     what the files beside them say
initialise.py      matched with the network, as a file for the workers
initial_report.py  their section of a report
provenance.py      samples that a model was trained on: none may be held out
"""
