"""What training settings go together, and how they are named, written and read. Light: no torch.

What there is, is declared in trainer/declared.py; everybody else asks here.
"""

import difflib
import json
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from trainer.declared import DEEPSPEED_STAGES, Declared
from trainer.field_types import Group, Shown, switched_on
from trainer.problems import Problem, Problems, quoted

TEMPLATES_DIR = Path(__file__).parent / "templates"


def template_names() -> list[str]:
    """The named chat templates that ship as Jinja files, sorted."""
    return sorted(path.stem for path in TEMPLATES_DIR.glob("*.jinja"))


class TrainSettings(Declared):
    """One training run's settings. Frozen; invalid values raise pydantic.ValidationError: use `parse`."""

    @model_validator(mode="before")
    @classmethod
    def _accept_compute_flags(cls, values: Any) -> Any:
        """LLaMA-Factory writes the compute type as one of three booleans."""
        values = dict(values)
        flags = [flag for flag in ("bf16", "fp16", "pure_bf16") if flag in values]
        chosen = [flag for flag in flags if switched_on(flag, values.pop(flag))]
        if len(chosen) > 1:
            raise Problem("setting_conflict", first=in_file("compute_type", f"{chosen[0]}: true"),
                          second=in_file("compute_type", f"{chosen[1]}: true"))  # fmt: skip
        if chosen and values.setdefault("compute_type", chosen[0]) != chosen[0]:
            raise Problem("setting_conflict", first=in_file("compute_type", f"{chosen[0]}: true"),
                          second=named("compute_type", values["compute_type"]))  # fmt: skip
        return values

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.template not in (known := ["auto", *template_names()]):
            raise _problem("setting_choice", "template", self.template, choices=", ".join(known))
        if self.warmup_steps and self.warmup_ratio:
            raise Problem("setting_conflict", first=self._named("warmup_steps"), second=self._named("warmup_ratio"))
        if self.lr_scheduler_type == "constant" and (self.warmup_steps or self.warmup_ratio):
            warmup = "warmup_steps" if self.warmup_steps else "warmup_ratio"
            raise Problem("setting_conflict", first=self._named("lr_scheduler_type"), second=self._named(warmup))
        if self.lr_scheduler_type == "polynomial" and self.learning_rate <= 1e-7:  # transformers' end of it
            raise _problem("learning_rate_too_low", "learning_rate", as_text(self.learning_rate),
                           scheduler=self._named("lr_scheduler_type"))  # fmt: skip
        if self.train_on_prompt and self.mask_history:
            raise Problem("setting_conflict", first=self._named("train_on_prompt"), second=self._named("mask_history"))
        for key in ("train_on_prompt", "mask_history"):
            if self.stage == "pt" and getattr(self, key):
                raise Problem("setting_conflict", first=self._named("stage"), second=self._named(key))
        for key in ("eval_steps", "early_stopping_steps", "load_best_model_at_end"):
            if getattr(self, key) and not self.val_size:
                raise Problem("setting_needs", first=self._named(key), second=named("val_size"))
        if self.max_steps == 0:
            raise _problem("setting_range", "max_steps", 0, range=_range(">= 1", "-1"))
        if not self.lora_target:
            raise _problem("setting_missing", "lora_target", "")
        return self

    @model_validator(mode="after")
    def _check_mix(self) -> Self:
        """Refuses weights that belong to no mixing, or not one to each dataset."""
        weights, count = self.interleave_probs, len(self.dataset)
        if weights and self.mix_strategy == "concat":
            raise Problem("setting_needs", first=self._named("interleave_probs"),
                          second=named("mix_strategy", "interleave_under"))  # fmt: skip
        if weights and (count not in (0, len(weights)) or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-6):
            example = ",".join(["0.7", "0.3"] if count == 2 else [f"{1 / max(count, 1):.4g}"] * max(count, 1))
            raise _problem("interleave_weights", "interleave_probs", as_text(weights), count=count, example=example)
        return self

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        """Refuses settings of a method that the run does not use, and methods that exclude each other."""
        for method in ("lora", "freeze"):
            for key in keys(method) if self.finetuning_type != method else []:
                if getattr(self, key) != TrainSettings.model_fields[key].default:
                    raise Problem("setting_needs", first=self._named(key), second=named("finetuning_type", method))
        if self.freeze_trainable_layers == 0:
            raise _problem("setting_range", "freeze_trainable_layers", 0, range=_range(">= 1", "-1, -2, …"))
        if not self.freeze_trainable_modules:
            raise _problem("setting_missing", "freeze_trainable_modules", "")
        if self.ds_offload and not self.deepspeed:
            raise Problem("setting_needs", first=self._named("ds_offload"), second=named("deepspeed"))
        for first, second in self._excluding():
            raise Problem("setting_conflict", first=self._named(first), second=self._named(second))
        return self

    def _excluding(self) -> list[tuple[str, str]]:
        """Pairs of settings that are on and cannot be together."""
        pairs = [("quantization_bit", "pissa_init"), ("quantization_bit", "create_new_adapter")]
        pairs += [("fsdp", "quantization_bit"), ("deepspeed", "fsdp"), ("deepspeed", "quantization_bit")]
        if self.compute_type in ("fp16", "pure_bf16"):
            pairs.append(("deepspeed", "compute_type"))
        if self.deepspeed not in DEEPSPEED_STAGES:  # a file says itself what is offloaded
            pairs.append(("ds_offload", "deepspeed"))
        if self.finetuning_type != "lora":
            pairs.append(("finetuning_type", "quantization_bit"))
        return [pair for pair in pairs if all(getattr(self, key) for key in pair)]

    def _named(self, key: str) -> dict[str, str]:
        return named(key, getattr(self, key))

    @property
    def alpha(self) -> int:
        """LoRA's scale numerator; twice the rank unless set, as LLaMA-Factory has it."""
        return self.lora_alpha or 2 * self.lora_rank


def shown(key: str) -> Shown:
    """Labels, help and group of the setting `key`."""
    extra = TrainSettings.model_fields[key].json_schema_extra
    assert isinstance(extra, dict)
    value = extra["shown"]
    assert isinstance(value, Shown)
    return value


def keys(*groups: Group) -> list[str]:
    """The setting keys of `groups` (all when none is named), in declared order."""
    return [key for key in TrainSettings.model_fields if not groups or shown(key).group in groups]


def label(key: str) -> dict[str, str]:
    """The label of `key` in every language, for a Problem's {label}."""
    return {"en": shown(key).en, "zh": shown(key).zh}


def choices(key: str) -> list[str]:
    """What a setting of few values accepts; empty when it is free."""
    if key == "template":
        return ["auto", *template_names()]
    field: FieldInfo = TrainSettings.model_fields[key]
    parts = get_args(field.annotation)
    if type(None) in parts and (numbers := get_args(parts[0])):
        return ["none", *map(str, numbers)]
    return [str(value) for value in parts if isinstance(value, str)]


def is_boolean(key: str) -> bool:
    return TrainSettings.model_fields[key].annotation is bool


def default_text(key: str) -> str:
    """The default as a person would type it."""
    return typed_text(key, TrainSettings.model_fields[key].default)


def typed_text(key: str, value: Any) -> str:
    """`value` of the setting `key` as a person would type it or choose it."""
    return "none" if value is None and "none" in choices(key) else as_text(value)


def as_text(value: Any) -> str:
    """A setting's value as a person types it: 5e-05 → 5e-5, tuples with commas, booleans as YAML's."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    if isinstance(value, tuple | list):
        texts = [as_text(item) for item in value]
        return json.dumps(texts, ensure_ascii=False) if any("," in text for text in texts) else ",".join(texts)
    return repr(value).replace("e-0", "e-").replace("e+0", "e+") if isinstance(value, float) else str(value)


def _range(en: str, also: str = "") -> dict[str, str]:
    words = {">": ">", ">=": "≥", "<": "<", "<=": "≤"}
    names = {">": "above", ">=": "at least", "<": "below", "<=": "at most"}
    parts = [part.split(" ") for part in en.split(" & ")]
    zh_text = " 且 ".join(f"{words[sign]} {number}" for sign, number in parts)
    en_text = " and ".join(f"{names[sign]} {number}" for sign, number in parts)
    return {"zh": zh_text + (f"，或为 {also}" if also else ""), "en": en_text + (f", or {also}" if also else "")}


def _limits(key: str) -> dict[str, str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [
        f"{sign} {getattr(item, name)}"
        for item in TrainSettings.model_fields[key].metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return _range(" & ".join(found))


def named(key: str, value: Any = None) -> dict[str, str]:
    """A setting for a Problem's {first} and {second}: its control's label and value; without a control also its key."""
    if shown(key).group == "file":
        return in_file(key, f"{key}: {as_text(value)}" if value is not None else key)
    written = "" if value is None or value is True else f" `{as_text(value)}`"
    return {"en": f"{shown(key).en}{written}", "zh": f"{shown(key).zh}{written}"}


def in_file(key: str, written: str) -> dict[str, str]:
    """A setting by its label and as a settings file has it."""
    return {"en": f"{shown(key).en} (`{written}`)", "zh": f"{shown(key).zh}（`{written}`）"}


def _problem(code: str, key: str, value: Any, **values: Any) -> Problem:
    return Problem(code, label=label(key), key=key, value=quoted(value), **values)


def unknown_setting(key: str, value: Any) -> Problem:
    """The refusal of a key that we do not support, with the nearest that we do."""
    near = difflib.get_close_matches(key, TrainSettings.model_fields, n=1, cutoff=0.7)
    suggestion = {"en": f", or use `{near[0]}`", "zh": f"，或改用 `{near[0]}`"} if near else {"en": "", "zh": ""}
    return Problem("setting_unknown", key=quoted(key), value=quoted(value), suggestion=suggestion)


def _translated(error: ErrorDetails) -> Problem:
    """A pydantic error as a labelled Problem."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Problem):
        return cause
    key, kind, value = str(error["loc"][0]), error["type"], error["input"]
    if kind == "extra_forbidden":
        return unknown_setting(key, value)
    if key == "placeholders":
        return _problem("placeholders_form", key, value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return _problem("setting_missing", key, "")
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return _problem("setting_range", key, value, range=_limits(key))
    if kind == "literal_error":
        allowed = choices(key) or [as_text(item) for item in get_args(TrainSettings.model_fields[key].annotation)]
        if len(allowed) == 1 and shown(key).group == "file":
            reason = {"en": shown(key).help_en, "zh": shown(key).help_zh}
            return _problem("setting_fixed", key, value, reason=reason)
        return _problem("setting_choice", key, value, choices=", ".join(allowed))
    code = {"int": "setting_not_integer", "flo": "setting_not_number", "fin": "setting_not_number"}.get(
        kind[:3], "setting_not_boolean" if kind.startswith("bool") else "setting_not_text"
    )
    return _problem(code, key, value, example=shown(key).example)


def parse(values: dict[str, Any]) -> TrainSettings:
    """Settings from text or YAML values. Raises Problems with every mistake found."""
    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        order = list(TrainSettings.model_fields)
        found = [_translated(item) for item in error.errors()]
        found.sort(key=lambda problem: order.index(key) if (key := problem.values.get("key")) in order else -1)
        raise Problems(found) from None
