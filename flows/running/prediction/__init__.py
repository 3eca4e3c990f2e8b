"""A registered model over many inputs, resumed where it stopped.

items.py     one prediction to make
volumes.py   a file, folder or glob to the images in it
pictures.py  a file, folder or glob to the images in it, to be restored
inputs.py    volumes, pictures or a table of prompts to the predictions to make
manifest.py  what a folder of predictions holds, and from what content
predict.py   predictions by every worker
changes.py   how much the frames of a clip change, before and after
here.py      a single worker: threads of this process
job.py       the same as one job, where the cluster is another machine
"""
