"""transformers' own forward pass of any model: a long prompt in stretches, and left early where the reader stops it."""

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from trainer.decoder import LEAST_STRETCH, STRETCH_WORK, leave_if

# Rotary embeddings whose frequencies depend on how long the text is.
_BY_LENGTH = {"longrope", "dynamic"}
# What a model has of its own where its positions are no plain numbers.
_POSITIONS = "_prepare_position_ids_for_generation"


class PlainPass:
    """Call it with `model`, the one it was made for or peft's around it, for the output after `ids`, which follow `done`
    others."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._in_stretches = True  # until a cache shows that it cannot be
        sizes = (sum(weight.numel() for weight in layer.parameters()) for layer in _layers(model))
        self._layer_size = max(sizes, default=1)
        # Some find positions out from a cache and some, Bamba say, only where they are told them, as `generate` does.
        own_positions = getattr(type(model), _POSITIONS, None) is getattr(GenerationMixin, _POSITIONS)
        self._takes_positions = own_positions and "position_ids" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def __call__(self, model: Any, ids: list[int], done: int, cancel: threading.Event, **arguments: Any) -> Any:
        """Raises decoder.Cancelled soon after `cancel` is set: before the next layer, or any part of it for several ids."""
        given = torch.tensor([ids], device=self._model.device)
        if self._takes_positions and not learns_prompt(model):
            arguments["position_ids"] = torch.arange(done, done + len(ids), device=given.device)[None]
        parts = _layers(model) if len(ids) == 1 else (part for part in model.modules() if not any(part.children()))
        with _leaving_early(parts, cancel):
            return model(input_ids=given, **arguments)

    def stretch(self, done: int) -> int:
        """How many tokens of a prompt transformers' pass is given after so many; 0: all that are left.

        On a processor a layer is to take some 50 ms.
        """
        if not self._in_stretches or self._model.device.type != "cpu" or _rope_type(self._model) in _BY_LENGTH:
            return 0
        width = getattr(self._model.config.get_text_config(decoder=True), "hidden_size", 0)
        work = 2 * self._layer_size + 4 * done * width
        return int(max(LEAST_STRETCH, STRETCH_WORK / work))

    def goes_on(self, cache: Any) -> bool:
        """Whether `cache`, which holds some of a prompt, takes the rest of it; if not, no other of this model will."""
        plain = (DynamicLayer, DynamicSlidingWindowLayer)
        self._in_stretches = type(cache) is DynamicCache and all(type(layer) in plain for layer in cache.layers)
        return self._in_stretches


def learns_prompt(model: Any) -> bool:
    """Whether peft puts a learnt prompt before whatever the model is given: it has to be given everything."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def keeps_last_logits(model: Any) -> bool:
    """Whether the model can leave out the logits of all but the last position."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def other_frequencies(model: Any, before: int, after: int) -> bool:
    """Whether keys of a text of `before` tokens are of no use in one of `after`: beyond its original context LongRoPE
    (https://arxiv.org/abs/2402.13753) turns all of them by other frequencies."""
    if _rope_type(model) != "longrope":
        return False
    original = model.config.get_text_config(decoder=True).rope_parameters["original_max_position_embeddings"]
    return bool((before > original) != (after > original))


def _rope_type(model: Any) -> str:
    rotary = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None)
    return str((rotary or {}).get("rope_type"))


def _layers(model: Any) -> Iterator[torch.nn.Module]:
    """The layers of a model, among other parts that come in lists."""
    return (layer for module in model.modules() if isinstance(module, torch.nn.ModuleList) for layer in module)


@contextmanager
def _leaving_early(parts: Iterator[torch.nn.Module], cancel: threading.Event) -> Iterator[None]:
    """Within it, a set `cancel` ends a forward pass before the next of `parts`."""

    def check(*_: Any) -> None:
        leave_if(cancel)

    handles = [part.register_forward_pre_hook(check) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
