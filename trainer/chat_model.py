"""A model to talk to: one base in memory, at most one adapter on it, swapped without loading the base again."""

import json
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch

from trainer import device, template_family
from trainer.chat_template import ChatTemplate
from trainer.declared import ComputeType
from trainer.decoding import Engine, Way
from trainer.generate import Finish, reply
from trainer.model import load_model, load_tokenizer
from trainer.problems import Problem
from trainer.sampling import Sampling
from trainer.tool_list import checked_tools
from trainer.weights import Weights

Message = dict[str, Any]

# Below it one thread decodes fastest: threads wait longer for each other than they compute. Measured on
# 2 cores, tokens/s with 1 and 2 threads: 26 MiB 265 and 24 (busy machine), 72 MiB 98 and 143.
_ONE_THREAD_BYTES = 64 * 2**20
_THREADS = torch.get_num_threads()


class ChatModel:
    """Raises Problem from every method that meets one; after a failed swap the adapter before it is on again."""

    def __init__(
        self,
        folder: Path,
        dtype: ComputeType = "auto",
        template: str = "auto",
        on_stage: Callable[[str], None] = lambda _: None,
        weights: "Future[Weights | None] | None" = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.device = device.current()
        self.folder, self.dtype = folder, self.device.compute_type(dtype)
        self.adapter: Path | None = None
        self._tokenizer = load_tokenizer(folder, trust_remote_code)
        self._theirs: dict[str, ChatTemplate] = {}  # of adapters that were trained with another, by source
        self.use_template(template)
        ahead = weights.result() if weights else None
        self._base = load_model(folder, self.device.dtype(dtype), self.device.torch_device, weights=ahead,
                                trust_remote_code=trust_remote_code)  # fmt: skip
        torch.set_num_threads(1 if self._base.get_memory_footprint() < _ONE_THREAD_BYTES else _THREADS)
        on_stage("preparing")
        self._engine = Engine(self._base)

    @property
    def template(self) -> ChatTemplate:
        """How conversations are written for it, with the adapter in use."""
        return self._template_of(self.adapter)

    def use_template(self, name: str) -> None:
        """Raises Problem for a name that is unknown, or for "auto" when the model brings none and its family is not known."""
        self._template = ChatTemplate.of(self._tokenizer, name, str(self.folder))
        self._named, self._theirs = name != "auto", {}

    def _template_of(self, adapter: Path | None) -> ChatTemplate:
        """With "auto", an adapter is asked in the words that it was trained with, where they lie beside it."""
        if adapter is None or self._named:
            return self._template
        source = template_family.beside(adapter)
        if source is None or source == self._template.source:
            return self._template
        if source not in self._theirs:
            ends = self._template.generation_eos
            self._theirs[source] = ChatTemplate(self._tokenizer, source, adapter.name, ends, "own")
        return self._theirs[source]

    def use_adapter(self, folder: Path | None) -> None:
        """Answers come from the base with the adapter of `folder`, or from the bare base as it was loaded."""
        self._engine.way(folder)
        self.adapter = folder

    @property
    def way(self) -> Way:
        """How its answers are computed."""
        return self._engine.way(self.adapter)

    def stands_beside(self, adapter: Path | None) -> bool:
        """Whether answers with `adapter` can be written in turn with others; else peft has to change the base first."""
        return self._engine.stands_beside(adapter)

    def get_ready(self) -> None:
        """For the next turn, while nobody waits."""
        self._engine.get_ready()

    def reply(
        self,
        messages: list[Message],
        sampling: Sampling,
        cancel: threading.Event,
        *,
        enable_thinking: bool = True,
        skip_special_tokens: bool = True,
        tools: Any = None,
        adapter: Path | Literal["loaded"] | None = "loaded",
    ) -> Generator[str | Finish, None, None]:
        """As `generate.reply`, for a conversation that ends with the user's message or a tool's.

        `tools`: as tool_list.checked_tools takes them. `adapter`: another than the one in use, None for the base.
        """
        known = checked_tools(tools)
        chosen = self.adapter if adapter == "loaded" else adapter
        template = self._template_of(chosen)
        ids = template.prompt_ids(checked_messages(messages), enable_thinking=enable_thinking, tools=known)
        if not ids:  # of a system prompt alone some templates write nothing
            raise Problem("chat_empty")
        return reply(
            self._engine,
            self._tokenizer,
            ids,
            sampling,
            {*template.stop_token_ids, *self._end_ids()},
            adapter=chosen,
            cancel=cancel,
            skip_special_tokens=skip_special_tokens,
            calls=known is not None,
        )

    def _end_ids(self) -> list[int]:
        ends = self._base.generation_config.eos_token_id if self._base.generation_config else None
        return ends if isinstance(ends, list) else [] if ends is None else [ends]


def checked_messages(messages: Any) -> list[Message]:
    """`messages` as templates take them. Raises Problem chat_protocol unless they are {role, content} objects, an
    assistant's with or without tool_calls; chat_empty when the last says nothing."""
    if not isinstance(messages, list):
        raise Problem("chat_protocol", detail="messages")
    found = [_checked_message(item) for item in messages]
    # A tool may well have given back nothing.
    if not found or not (found[-1]["content"].strip() or found[-1]["role"] == "tool"):
        raise Problem("chat_empty")
    return found


def _checked_message(item: Any) -> Message:
    calls = item.get("tool_calls") if isinstance(item, dict) else None
    content = item.get("content") if isinstance(item, dict) else None
    if calls and content is None:
        content = ""
    if not isinstance(item, dict) or not isinstance(item.get("role"), str) or not isinstance(content, str):
        raise Problem("chat_protocol", detail="messages")
    # LLaMA-Factory's name for what a tool gave back.
    role = "tool" if item["role"] == "observation" else item["role"]
    # Half of an emoji, or bytes of a terminal that are no UTF-8, are no text to a tokenizer.
    message: Message = {"role": role, "content": content.encode("utf-8", "replace").decode("utf-8")}
    if calls:
        message["tool_calls"] = [_checked_call(call) for call in calls] if isinstance(calls, list) else _bad_calls()
    for key in ("name", "tool_call_id"):
        if isinstance(item.get(key), str):
            message[key] = item[key]
    return message


def _checked_call(call: Any) -> Message:
    """With its arguments as an object: OpenAI's clients send them as JSON text, templates want to write them."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        _bad_calls()
    given = function.get("arguments") or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            _bad_calls()
    if not isinstance(given, dict):
        _bad_calls()
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": given}}


def _bad_calls() -> NoReturn:
    raise Problem("chat_protocol", detail="tool_calls")


def load(
    current: ChatModel | None,
    model: Path,
    adapter: Path | None,
    *,
    dtype: ComputeType = "auto",
    template: str = "auto",
    on_stage: Callable[[str], None],
    weights: "Future[Weights | None] | None" = None,
    trust_remote_code: bool = False,
) -> ChatModel:
    """`current` with `adapter` when it holds `model` in that type already, else a new ChatModel."""
    wanted = device.current().compute_type(dtype)
    if current is None or (current.folder, current.dtype) != (model, wanted):
        on_stage("loading_model")
        current = ChatModel(model, dtype, template, on_stage, weights, trust_remote_code)
    else:
        current.use_template(template)
    if current.adapter != adapter:
        if adapter is not None:
            on_stage("loading_adapter")
        current.use_adapter(adapter)
    return current
