"""A registered model over many inputs, resumed where it stopped.

items.py     one prediction to make
volumes.py   a file, folder or glob to the images in it
pictures.py  a file, folder or glob to the images in it, to be restored
inputs.py    volumes, pictures or a table of prompts to the predictions to make
predict.py   predictions by every worker, and the manifest of their folder
here.py      a single worker: threads of this process
job.py       the same as one job, where the cluster is another machine
"""
