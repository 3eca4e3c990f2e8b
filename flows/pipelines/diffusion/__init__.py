"""Diffusion: captioned images to a registered text-to-image model.

config.py          configuration
pipeline.py        the steps, in order
encoders/          stages: the CLIP and the autoencoder, trained here or given as folders
encode.py          stage: shards to latents and text states
encoding.py        one shard: images and captions to latents and text states
task.py            the training task of the noise predictor
train.py           stage: latents and text states to a checkpoint
model.py           the records of trained networks to a model folder
text_to_image.py   prompts to images
image_condition.py the image that a model draws from
requests.py        rows of the model's columns to requests
explain.py         what images attend to in their prompts
evaluate.py        stage: checkpoint to generated images, scores and report
evaluation/        what is drawn and measured, the actor, the report
champion.py        the champion on the same prompts
ablation.py        variants of the skip connections, to be compared
register.py        stage: checkpoint and scores to a registered version
pyfunc_model.py    the registered model as MLflow runs it
"""
