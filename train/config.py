"""What a training run can be told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the defaults train sed-tiny on two CPU cores in under two hours.

    Attributes:
        preset: name of the network's preset.
        seed: of weights, scenes and samples.
        text_steps: optimiser steps of the text pre-training; 0 skips it.
        text_batch: captions per step.
        text_lr: peak learning rate of the text pre-training.
        clip_steps: optimiser steps of the CLIP pre-training; 0 skips it.
        clip_batch: image-caption pairs per step; a multiple of 4.
        clip_size: side of the crops CLIP is pre-trained on, in pixels, a multiple of 64; two steps in three
            see them at half that size, which is quicker and teaches scale.
        clip_lr: peak learning rate of the pre-training.
        steps: optimiser steps of the segmentation training.
        batch: scenes per step.
        categories: categories per scene on average, those present included.
        target_size: side of the maps on which the loss is taken, in pixels.
        lr: peak learning rate of the decoder.
        encoder_lr_factor: the image encoder learns at this fraction of `lr`.
        weight_decay: AdamW's, none on norms, biases and layer scales.
        grad_clip: bound on the global gradient norm.
        workers: processes that draw scenes.
        log_every: steps between two lines of the log.
        save_every: segmentation steps between two writes of the checkpoint.
    """

    preset: str = "sed-tiny"
    seed: int = 0
    text_steps: int = 300
    text_batch: int = 64
    text_lr: float = 1e-3
    clip_steps: int = 3400
    clip_batch: int = 64
    clip_size: int = 128
    clip_lr: float = 2e-3
    steps: int = 4000
    batch: int = 4
    categories: int = 28
    target_size: int = 64
    lr: float = 1e-3
    encoder_lr_factor: float = 1.0
    weight_decay: float = 1e-4
    grad_clip: float = 0.01
    workers: int = 1
    log_every: int = 20
    save_every: int = 500
