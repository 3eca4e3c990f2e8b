"""Search over the settings of a training, as trials of Ray Tune.

space.py      names of settings to their choices, and how a choice changes the settings of a training
spec.py       budget and limits, as configured
trial.py      one trial: settings to score, time of a step, parameters, latency
run.py        all trials, side by side
fit.py        Ray Tune run without giving it the process's signals
scheduler.py  which of them end early (ASHA)
inner.py      held-out samples of the search itself, taken from the training samples
listener.py   what trials report: kept, shown
"""
