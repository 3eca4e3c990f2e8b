"""Stages that train, on Ray Train; the worker runs the loop for any task.

stage.py          the stage: starts the workers, follows them, names the chosen checkpoint
worker.py         what each worker runs: resume, loop, report
progress.py       from the workers to the terminal and to MLflow
task.py           what a task must say: the network, its objective, its batches, how it is validated
segmentation.py, alignment.py, autoencoder.py, diffusion.py    the tasks there are
"""
