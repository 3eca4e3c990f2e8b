"""Planning: from a folder of cases to a configuration with reasons, by nnU-Net's rules (Isensee 2021, 2024).

topology.py   how often each axis is halved
networks.py   networks to plan for, with the memory they take
sizes.py      patch and batch within a memory, over a data set
candidates.py full resolution, slices, low resolution
effort.py     time that predictions take without a GPU
masks.py      classes of masks that nothing declares
survey.py     what the cases are: spacings, shapes, intensities, names
sides.py      classes that are told apart by their side
options.py    options of a plan, and its settings
stages.py     settings of a network and its batch
rules.py      each setting with its reason
template.py   the settings as commented YAML
"""
