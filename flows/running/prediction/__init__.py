"""A registered model over many inputs, resumed where it stopped.

inputs.py    a file, folder, glob or table of prompts to the predictions to make
predict.py   predictions on every actor, and the manifest of their folder
job.py       the same as one job, where the cluster is another machine
"""
