"""Any training on Ray Train; the worker runs the loop whatever the task.

task.py         what a task must say: the network, its objective, its batches, its validation
held_out.py     the samples of an index by split and bucket; the loss of held-out samples
stage.py        the stage: starts the workers, follows them, selects the checkpoint
worker.py       what each worker runs: resume, loop, report
progress.py     from the workers' reports to the terminal and to MLflow
curves.py       the reported values of a finished training
warm_start.py   weights of the champion to start from
"""
