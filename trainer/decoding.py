"""How answers are computed: by captured graphs, by the lean pass, or by transformers' own, as the model allows.

One base in memory. A plain LoRA adapter is a few small matrices beside it, so several can answer at a time and the
base is never touched; whatever else an adapter is, peft puts it on and takes it off again.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from trainer.attached import Attached
from trainer.decoder import Cache, Cancelled, Decoder, LowRank
from trainer.decoder_graph import Graphs
from trainer.device import is_out_of_memory
from trainer.draw import NOT_FINITE, Draw
from trainer.low_rank import read_adapter
from trainer.model_folder import check_adapter_folder
from trainer.plain_pass import PlainPass, keeps_last_logits, learns_prompt, other_frequencies
from trainer.problems import Problem
from trainer.sampling import Sampling

log = logging.getLogger("trainer")

Way = Literal["graphs", "lean", "transformers"]
# What tells an adapter from another that was there before under its name.
Key = tuple[Path, int, int]
# Conversations whose keys and values are kept, one an adapter; and adapters that are kept beside the base.
MOST_CACHES, MOST_ADAPTERS = 4, 8
LEAST_CAPACITY = 2048
# Of an answer, where neither the user nor the model names fewer: its random numbers are made beforehand.
MOST_TOKENS_OF_AN_ANSWER = 2**20
# The lean pass makes room for so many new tokens at first, and more as they come.
ROOM_AT_FIRST = 1024


class Engine:
    """A model ready to answer, with any adapter that fits it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._decoder = Decoder.of(model)
        self._graphs = Graphs.of(self._decoder) if self._decoder else None
        self._adapters: OrderedDict[Key, LowRank | None] = OrderedDict()
        self._caches: OrderedDict[Key | None, Cache] = OrderedDict()
        self._attached: tuple[Key, Attached] | None = None
        self._kept: OrderedDict[Key | None, tuple[list[int], Any]] = OrderedDict()  # transformers' caches, of what
        self.plain = PlainPass(model)

    def way(self, adapter: Path | None = None) -> Way:
        """How answers with `adapter` are computed. Raises Problem when it does not fit the model, or is gone."""
        return self._way(self._key(adapter))

    def stands_beside(self, adapter: Path | None) -> bool:
        """Whether answers with `adapter` leave the base as it is, so that others may come between their tokens."""
        return self._beside(self._key(adapter))

    def answer(
        self, prompt_ids: list[int], sampling: Sampling, cancel: threading.Event, adapter: Path | None = None
    ) -> "Answer":
        """Raises Problem chat_too_long when the prompt leaves no room, or what the adapter meets."""
        limit = context_limit(self.model)
        if limit is not None and len(prompt_ids) >= limit:
            raise Problem("chat_too_long", tokens=len(prompt_ids), limit=limit)
        kinds: dict[Way, type[Answer]] = {"graphs": GraphAnswer, "lean": LeanAnswer, "transformers": PlainAnswer}
        key = self._key(adapter)
        return kinds[self._way(key)](self, prompt_ids, sampling, cancel, key, limit)

    def get_ready(self) -> None:
        """What makes the next turn quicker and need not be waited for: call it when nothing else is to be done."""
        for key, cache in self._caches.items() if self._graphs else ():
            adapter = self._adapters.get(key) if key else None
            if self._graphs and (key is None or adapter):
                self._graphs.get_ready(cache, adapter)

    # ---- for the answers ----

    @property
    def decoder(self) -> Decoder:
        assert self._decoder is not None
        return self._decoder

    @property
    def graphs(self) -> Graphs:
        assert self._graphs is not None
        return self._graphs

    def low_rank(self, adapter: Key | None) -> LowRank | None:
        """The plain adapter `adapter`, to be used beside the bare base; None for the base alone."""
        self.through_peft(None)
        return self._low_rank(adapter) if adapter else None

    def take_cache(self, adapter: Key | None, tokens: int) -> Cache:
        """The cache of `adapter`'s conversation, or a new one, with room for `tokens`.

        It is the caller's alone until it comes back by `keep_cache`: two answers at a time never share one.
        """
        found = self._caches.pop(adapter, None)
        return found if found and found.capacity >= tokens else self.with_room(found, tokens)

    def keep_cache(self, adapter: Key | None, cache: Cache) -> None:
        _put(self._caches, adapter, cache, MOST_CACHES)

    def with_room(self, cache: Cache | None, tokens: int) -> Cache:
        """A cache with what `cache` holds and room for `tokens`; other conversations' go when memory is short."""
        capacity = max(LEAST_CAPACITY, 1 << (tokens - 1).bit_length())
        if limit := context_limit(self.model):
            capacity = max(tokens, min(capacity, limit))
        try:
            return cache.grown(self.decoder, capacity) if cache else Cache(self.decoder, capacity)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._caches.clear()
        return cache.grown(self.decoder, tokens) if cache else Cache(self.decoder, tokens)

    def through_peft(self, adapter: Key | None) -> Any:
        """The model with `adapter` on it as peft does it, or bare. Raises Problem when it does not fit."""
        if self._attached and self._attached[0] != adapter:
            self._attached[1].remove()
            self._attached = None
        if adapter is None:
            return self.model
        if self._attached is None:
            self._attached = adapter, Attached(self.model, adapter[0])
        return self._attached[1].model

    def keep(self, adapter: Key | None, ids: list[int], cache: Any) -> None:
        """Remembers transformers' cache, which holds at least `ids`, where it can be cut back to a shorter prefix."""
        if type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers):
            _put(self._kept, adapter, (ids, cache), MOST_CACHES)

    def kept(self, adapter: Key | None, prompt_ids: list[int]) -> tuple[int, Any]:
        """How many tokens of the prompt are in a cache already, and that cache; 0 and None when none."""
        ids, cache = self._kept.pop(adapter, ([], None))
        if other_frequencies(self.model, len(ids), len(prompt_ids)):
            return 0, None
        same = 0
        for old, new in zip(ids, prompt_ids[:-1], strict=False):
            if old != new:
                break
            same += 1
        if not same:
            return 0, None
        for layer in cache.layers:  # a pass that was left early has written into some of them
            layer.keys, layer.values = layer.keys[..., :same, :], layer.values[..., :same, :]
        return same, cache

    # ---- adapters ----

    def _way(self, adapter: Key | None) -> Way:
        if self._beside(adapter):
            return "graphs" if self._graphs else "lean"
        self.through_peft(adapter)
        return "transformers"

    def _beside(self, adapter: Key | None) -> bool:
        return self._decoder is not None and (adapter is None or self._low_rank(adapter) is not None)

    def _key(self, adapter: Path | None) -> Key | None:
        """An adapter that is in memory is still to be had when its folder is gone. Raises Problem for another."""
        if adapter is None:
            return None
        weights, config = (adapter / name for name in ("adapter_model.safetensors", "adapter_config.json"))
        try:
            return adapter, weights.stat().st_mtime_ns, config.stat().st_mtime_ns
        except OSError:
            held = [key for key, found in self._adapters.items() if found] + (
                [self._attached[0]] if self._attached else []
            )
            if same := [key for key in held if key[0] == adapter]:
                return same[-1]
            check_adapter_folder(adapter)
            raise

    def _low_rank(self, key: Key) -> LowRank | None:
        """The adapter beside the base; None when peft has to put it on."""
        if key not in self._adapters:
            found = read_adapter(key[0], self.decoder)
            if found and self._graphs:
                found = self._graphs.prepared(found)
            _put(self._adapters, key, found, MOST_ADAPTERS)
        self._adapters.move_to_end(key)
        return self._adapters[key]


def _put(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    """The least lately used ones go where there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


class Answer:
    """Iterates over new token ids until there is no room or `cancel` is set; the caller knows the stop ids.

    `room_reason`: what it means when the ids end by themselves.
    """

    def __init__(
        self,
        engine: Engine,
        prompt_ids: list[int],
        sampling: Sampling,
        cancel: threading.Event,
        adapter: Key | None,
        limit: int | None,
    ) -> None:
        most = min(sampling.max_new_tokens, MOST_TOKENS_OF_AN_ANSWER)
        room = most if limit is None else min(most, limit - len(prompt_ids))
        self.room_reason: Literal["length", "context"] = "length" if room == most else "context"
        self._room, self._engine, self._prompt, self._sampling = room, engine, prompt_ids, sampling
        self._cancel, self._adapter = cancel, adapter

    def __iter__(self) -> Iterator[int]:
        raise NotImplementedError

    def _draw(self, vocabulary: int) -> Draw:
        return Draw(self._sampling, self._prompt, self._room, vocabulary, self._engine.model.device)


class LeanAnswer(Answer):
    """The lean pass, one token after the other."""

    def __iter__(self) -> Iterator[int]:
        engine, decoder = self._engine, self._engine.decoder
        low = engine.low_rank(self._adapter)
        cache = engine.take_cache(self._adapter, len(self._prompt) + min(self._room, ROOM_AT_FIRST))
        new = self._prompt[cache.keep_prefix(self._prompt) :]
        draw = self._draw(len(decoder.output))
        try:
            for _ in range(self._room):
                token_id = number(draw(decoder.read(new, cache, low, self._cancel)))
                yield token_id
                if self._cancel.is_set():
                    return
                new = [token_id]
                if len(cache.ids) == cache.capacity:
                    cache = engine.with_room(cache, min(2 * cache.capacity, len(self._prompt) + self._room))
        except Cancelled:
            return
        finally:
            engine.keep_cache(self._adapter, cache)


class GraphAnswer(Answer):
    """Captured steps. The device works on the next token while the last one is read, decoded and sent."""

    def __iter__(self) -> Iterator[int]:
        cache = self._engine.take_cache(self._adapter, len(self._prompt) + self._room)
        try:
            yield from self._ids(cache)
        except Cancelled:
            return
        finally:
            self._engine.keep_cache(self._adapter, cache)

    def _ids(self, cache: Cache) -> Iterator[int]:
        engine, decoder, graphs = self._engine, self._engine.decoder, self._engine.graphs
        low = engine.low_rank(self._adapter)
        draw = self._draw(len(decoder.output))
        new = self._prompt[cache.keep_prefix(self._prompt) :]
        short = graphs.takes(new, cache)
        token = draw(graphs.read(new, cache, low) if short else decoder.read(new, cache, low, self._cancel))
        emitted = [number(token)]
        yield emitted[0]
        if self._room == 1 or self._cancel.is_set():
            return
        steps = graphs.steps(cache, low, draw, token, len(self._prompt))
        try:
            steps.launch()
            while len(emitted) < self._room and not self._cancel.is_set():
                if len(emitted) + 1 < self._room:
                    steps.launch()
                emitted.append(checked(steps.next()))
                yield emitted[-1]
        finally:
            cache.ids = [*self._prompt, *emitted[:-1]]


class PlainAnswer(Answer):
    """transformers' forward of any AutoModelForCausalLM, or peft's around it."""

    def __iter__(self) -> Iterator[int]:
        engine = self._engine
        model = engine.through_peft(self._adapter)
        self._done, self._cache = engine.kept(self._adapter, self._prompt)  # how much of `ids` is in that cache
        whole = learns_prompt(model)
        arguments = {"use_cache": not whole} | ({"logits_to_keep": 1} if keeps_last_logits(model) else {})
        ids = list(self._prompt)
        draw: Draw | None = None
        try:
            for _ in range(self._room):
                if self._done and other_frequencies(engine.model, self._done, len(ids)):
                    self._done, self._cache = 0, None
                if not whole:
                    self._read_stretches(model, ids, arguments)
                arguments["past_key_values"] = self._cache
                output = engine.plain(model, ids[self._done :], self._done, self._cancel, **arguments)
                self._cache = None if whole else getattr(output, "past_key_values", None)
                self._done = len(ids) if self._cache is not None else 0  # without a cache: slow, and right
                logits = output.logits[0, -1]
                draw = draw or self._draw(len(logits))
                ids.append(number(draw(logits)))
                yield ids[-1]
                if self._cancel.is_set():
                    return
        except Cancelled:
            return
        finally:
            if self._done:
                engine.keep(self._adapter, ids[: self._done], self._cache)

    def _read_stretches(self, model: Any, ids: list[int], arguments: dict[str, Any]) -> None:
        """Reads a long prompt but for its end, where a cache can be gone on with: so that a stop is soon heard."""
        plain = self._engine.plain
        while 0 < (stretch := plain.stretch(self._done)) < len(ids) - self._done:
            given = ids[self._done : self._done + stretch]
            output = plain(model, given, self._done, self._cancel, **{**arguments, "past_key_values": self._cache})
            self._cache = getattr(output, "past_key_values", None)
            if plain.goes_on(self._cache):
                self._done += stretch
            else:
                self._done, self._cache = 0, None


def number(token: Tensor) -> int:
    """The id, waited for. Raises Problem chat_not_finite."""
    return checked(int(token))


def checked(token_id: int) -> int:
    if token_id == NOT_FINITE:
        raise Problem("chat_not_finite", value="nan")
    return token_id


def context_limit(model: Any) -> int | None:
    """The most tokens of prompt and answer together; None when the model names no limit."""
    config = model.config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None)
