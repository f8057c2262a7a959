"""transformers.Trainer as its documentation has it: padded batches, gradient accumulation. What ours is compared with.

Samples and their order are ours, so that both take the same optimizer steps.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from trainer import batching
from trainer.chat_template import Sample


@dataclass(frozen=True)
class Step:
    """An optimizer step as Trainer logs it; `ended`: seconds on time.monotonic."""

    loss: float
    grad_norm: float
    learning_rate: float
    ended: float


class Order(torch.utils.data.Sampler[int]):
    """The order of our own epochs, a new one each time that it is gone through."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        epoch = list(batching.steps(self._count, self._count, self._seed, self._epoch, self._epoch + 1))
        self._epoch += 1
        return iter(epoch[0])


class OrderedTrainer(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return Order(len(self.train_dataset), self.args.seed)


class Watch(TrainerCallback):
    """Keeps what Trainer logs and when."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.steps.append(Step(logs["loss"], logs["grad_norm"], logs["learning_rate"], time.monotonic()))


def train(model: Any, tokenizer: Any, samples: list[Sample], work: Path, **arguments: Any) -> list[Step]:
    """Trains `model` in place on the CPU in fp32, `arguments` being Trainer's own; every step's record."""
    watch = Watch()
    rows = [
        {"input_ids": sample.input_ids, "attention_mask": [1] * len(sample.input_ids), "labels": sample.labels}
        for sample in samples
    ]
    trainer = OrderedTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return watch.steps
