"""Every training setting, declared once: key, type, default, range, group, labels and help.

From here come the widget, the form's checks, the YAML, the command-line flag and its help, the
previewed command and the trainer's value. Light: no torch. Keys are LLaMA-Factory's and
Hugging Face's own; an unknown key is an error.
"""

import difflib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from trainer.problems import Language, Problem, Problems, quoted

TEMPLATES_DIR = Path(__file__).parent / "templates"

Group = Literal["model", "data", "training", "extra", "lora", "freeze", "output", "file"]
ComputeType = Literal["auto", "bf16", "fp16", "fp32", "pure_bf16"]
Scheduler = Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "cosine_with_restarts"]


@dataclass(frozen=True)
class Shown:
    """How people meet a setting. Group "file": it has no control of its own on the page."""

    group: Group
    zh: str
    en: str
    help_zh: str
    help_en: str
    example: str

    def label(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en

    def help(self, language: Language) -> str:
        return self.help_zh if language == "zh" else self.help_en


def setting(
    default: Any, group: Group, zh: str, en: str, help_zh: str, help_en: str, example: str = "", **limits: Any
) -> Any:
    """A pydantic field that knows its labels. `limits` are pydantic's own (gt, ge, lt, le)."""
    shown = Shown(group, zh, en, help_zh, help_en, example or str(default))
    return Field(default, json_schema_extra={"shown": shown}, **limits)  # type: ignore[dict-item]


def template_names() -> list[str]:
    """The named chat templates that ship as Jinja files, sorted."""
    return sorted(path.stem for path in TEMPLATES_DIR.glob("*.jinja"))


def _names(value: Any) -> Any:
    """`a,b` or [a, b] to a tuple of names, as LLaMA-Factory writes its lists."""
    if value is None:
        return ()
    if isinstance(value, str) and value.startswith("["):  # names with commas of their own
        value = json.loads(value)
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
        return tuple(item.strip() for item in items if item.strip())
    return value


def _whole_number(value: Any) -> Any:
    """A number among few choices, as a command line or a list writes it."""
    value = _none_if_blank(value)
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def _none_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none", "null") else value


def _truth(value: Any) -> Any:
    """true and false as a command line writes them."""
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


def _switched_on(flag: str, value: Any) -> bool:
    truth = _truth(value)
    if truth is None or isinstance(truth, bool):
        return bool(truth)
    raise Problem("setting_not_boolean", label={"en": flag, "zh": flag}, value=quoted(value))


Yes = Annotated[Literal[True], BeforeValidator(_truth)]
No = Annotated[Literal[False], BeforeValidator(_truth)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
OptionalInt = Annotated[int | None, BeforeValidator(_none_if_blank)]
OptionalBool = Annotated[bool | None, BeforeValidator(_none_if_blank)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_blank)]
Bits = Annotated[Literal[8, 4] | None, BeforeValidator(_whole_number)]


class TrainSettings(BaseModel):
    """One training run's settings. Frozen; invalid values raise pydantic.ValidationError: use `parse`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # fmt: off
    model_name_or_path: str = setting("", "model", "模型路径", "Model path",
        "模型文件夹", "A model folder")
    finetuning_type: Literal["lora", "full", "freeze"] = setting("lora", "model", "微调方法", "Finetuning method",
        "lora 只训练小的附加矩阵；full 训练全部参数；freeze 只训练部分层",
        "lora trains small added matrices; full every weight; freeze some layers")
    adapter_name_or_path: OptionalText = setting(None, "model", "检查点路径", "Checkpoint path",
        "对话时加载它；训练时从它继续", "Loaded for chat; training goes on from it")
    quantization_bit: Bits = setting(None, "model", "量化等级", "Quantization bit",
        "训练 LoRA 时把模型压缩到 8 或 4 位（QLoRA），省显存但较慢",
        "The model under a LoRA is kept in 8 or 4 bits (QLoRA): less memory, slower")
    template: str = setting("auto", "model", "对话模板", "Chat template",
        "auto 使用模型自带的模板", "auto uses the model's own template")

    stage: Literal["sft"] = setting("sft", "data", "训练阶段", "Stage",
        "监督微调：学习数据集里的回答", "Supervised fine-tuning: learns the answers of the dataset")
    dataset_dir: str = setting("data", "data", "数据路径", "Data dir",
        "数据集所在的文件夹", "The folder that holds the datasets")
    dataset: Names = setting((), "data", "数据集", "Dataset",
        "可选择多个", "One or more")

    learning_rate: Finite = setting(5e-5, "training", "学习率", "Learning rate",
        "AdamW 的初始学习率", "AdamW's initial learning rate", "5e-5", gt=0)
    num_train_epochs: Finite = setting(3.0, "training", "训练轮数", "Epochs",
        "遍历数据集的次数", "Passes over the dataset", "3.0", gt=0, le=100000)
    max_grad_norm: Finite = setting(1.0, "training", "最大梯度范数", "Maximum gradient norm",
        "梯度裁剪的上限；0 为不裁剪", "Gradients are clipped to it; 0 switches clipping off", "1.0", ge=0)
    max_samples: int = setting(100000, "training", "最大样本数", "Max samples",
        "每个数据集最多取多少条", "At most so many samples of each dataset", ge=1)
    compute_type: ComputeType = setting("auto", "training", "计算类型", "Compute type",
        "训练时的数值精度", "Numeric precision of training")
    cutoff_len: int = setting(2048, "training", "截断长度", "Cutoff length",
        "每条样本的最大词元数", "Most tokens of one sample", ge=4, le=131072)
    per_device_train_batch_size: int = setting(2, "training", "批处理大小", "Batch size",
        "每个设备一次的样本数", "Samples of one device at a time", ge=1, le=1024)
    gradient_accumulation_steps: int = setting(8, "training", "梯度累积", "Gradient accumulation",
        "每次更新累积的批数", "Batches that make one update", ge=1, le=1024)
    val_size: Finite = setting(0.0, "training", "验证集比例", "Val size",
        "留作验证的比例，0 为不验证", "Share kept for validation; 0: none", "0.1", ge=0, lt=1)
    lr_scheduler_type: Scheduler = setting("cosine", "training", "学习率调节器", "LR scheduler",
        "学习率随训练变化的方式", "How the learning rate changes")

    logging_steps: int = setting(5, "extra", "日志间隔", "Logging steps",
        "每多少步记录一次", "Steps between two records", ge=1, le=100000)
    save_steps: int = setting(100, "extra", "保存间隔", "Save steps",
        "每多少步保存一个检查点", "Steps between two checkpoints", ge=1, le=100000)
    warmup_steps: int = setting(0, "extra", "预热步数", "Warmup steps",
        "学习率从 0 升到设定值的步数", "Steps in which the learning rate rises from 0", ge=0, le=100000)
    seed: int = setting(42, "extra", "随机种子", "Seed",
        "同样的种子得到同样的训练", "The same seed gives the same run", ge=0, le=2**32 - 1)
    neftune_noise_alpha: Finite = setting(0.0, "extra", "NEFTune 噪声参数", "NEFTune alpha",
        "训练时给输入嵌入加噪声，常用 5；0 为不加", "Noise on the input embeddings in training, often 5; 0: none", "5",
        ge=0)
    train_on_prompt: bool = setting(False, "extra", "学习提示词", "Train on prompt",
        "提示词也计入损失", "The prompt counts in the loss as well")
    mask_history: bool = setting(False, "extra", "不学习历史对话", "Mask history",
        "只学习最后一轮回答", "Only the last answer is learnt")

    lora_rank: int = setting(8, "lora", "LoRA 秩", "LoRA rank",
        "附加矩阵的秩", "Rank of the added matrices", ge=1, le=1024)
    lora_alpha: OptionalInt = setting(None, "lora", "LoRA 缩放系数", "LoRA alpha",
        "留空为秩的两倍", "Empty: twice the rank", "16", ge=1, le=4096)
    lora_dropout: Finite = setting(0.0, "lora", "LoRA 随机丢弃", "LoRA dropout",
        "训练时丢弃的概率", "Probability of dropping in training", "0.1", ge=0, lt=1)
    lora_target: Names = setting(("all",), "lora", "LoRA 作用模块", "LoRA modules",
        "all 为全部线性层；多个用逗号分隔", "all: every linear layer; several: comma between them", "q_proj,v_proj")
    loraplus_lr_ratio: Finite = setting(0.0, "lora", "LoRA+ 学习率比例", "LoRA+ LR ratio",
        "B 矩阵的学习率是 A 的多少倍，常用 16；0 为相同", "Learning rate of the B matrices over that of A, often 16; 0: the same",
        "16", ge=0)
    additional_target: Names = setting((), "lora", "附加模块", "Additional modules",
        "与适配器一起完整训练的模块；多个用逗号分隔", "Trained in full beside the adapter; several: comma between them",
        "embed_tokens,lm_head")
    use_rslora: bool = setting(False, "lora", "使用 rslora", "Use rslora",
        "按秩的平方根缩放，适合较大的秩", "Scales by the root of the rank: for high ranks")
    use_dora: bool = setting(False, "lora", "使用 DoRA", "Use DoRA",
        "另外训练权重的幅度，较慢", "Trains the weights' magnitudes as well; slower")
    pissa_init: bool = setting(False, "lora", "使用 PiSSA", "Use PiSSA",
        "从权重的主成分开始训练；保存的秩为两倍", "Starts from the weights' principal part; saved at twice the rank")
    create_new_adapter: bool = setting(False, "lora", "新建适配器", "Create new adapter",
        "在所选检查点之上训练新的适配器；结果包含两者", "Trains a new one on top of the chosen checkpoint; the result holds both")

    freeze_trainable_layers: int = setting(2, "freeze", "可训练层数", "Trainable layers",
        "正数训练最后若干层，负数训练最前若干层", "Above 0: the last layers are trained; below 0: the first", ge=-1000, le=1000)
    freeze_trainable_modules: Names = setting(("all",), "freeze", "可训练模块", "Trainable modules",
        "这些层中训练哪些模块；all 为全部", "Which modules of these layers; all: every one", "self_attn,mlp")
    freeze_extra_modules: Names = setting((), "freeze", "额外模块", "Extra modules",
        "各层之外另行训练的模块", "Modules outside the layers that are trained as well", "embed_tokens,norm")

    output_dir: str = setting("", "output", "输出目录", "Output dir",
        "训练结果写入的新文件夹", "The new folder that the run writes")
    resume_from_checkpoint: OptionalText = setting(None, "file", "继续训练的检查点", "Resume from checkpoint",
        "检查点文件夹；latest 为输出目录里最近的", "A checkpoint folder; latest: the newest in the output dir", "latest")

    weight_decay: Finite = setting(0.0, "file", "权重衰减", "Weight decay",
        "AdamW 的权重衰减", "AdamW's weight decay", "0.01", ge=0)
    adam_beta1: Finite = setting(0.9, "file", "Adam beta1", "Adam beta1",
        "一阶动量系数", "First moment's decay", ge=0, lt=1)
    adam_beta2: Finite = setting(0.999, "file", "Adam beta2", "Adam beta2",
        "二阶动量系数", "Second moment's decay", ge=0, lt=1)
    adam_epsilon: Finite = setting(1e-8, "file", "Adam epsilon", "Adam epsilon",
        "防止除以零", "Keeps from dividing by zero", gt=0)
    max_steps: int = setting(-1, "file", "最大步数", "Max steps",
        "大于 0 时代替训练轮数", "Above 0 it replaces the epochs", ge=-1)
    warmup_ratio: Finite = setting(0.0, "file", "预热比例", "Warmup ratio",
        "预热占总步数的比例", "Warmup's share of all steps", "0.1", ge=0, le=1)
    eval_steps: OptionalInt = setting(None, "file", "验证间隔", "Eval steps",
        "留空与保存间隔相同；验证损失创新低的那一步总会保存检查点",
        "Empty: the same as save steps; a step with the lowest eval loss so far is always saved", "100", ge=1)
    early_stopping_steps: OptionalInt = setting(None, "file", "提前停止步数", "Early stopping steps",
        "验证损失连续这么多次验证没有创新低就提前结束；留空不提前",
        "The run ends after so many evaluations in a row without a new lowest eval loss; empty: never", "3", ge=1)
    load_best_model_at_end: bool = setting(False, "file", "以最佳检查点为结果", "Load best model at end",
        "最终结果取验证损失最低的检查点，而不是最后一步",
        "The result is the checkpoint with the lowest eval loss instead of the last step")
    save_total_limit: OptionalInt = setting(None, "file", "检查点保留数", "Save total limit",
        "只保留最近的若干检查点；最佳和最新的从不删除",
        "Keep only so many checkpoints, the newest; the best and the newest are never removed", "3", ge=1)
    save_only_model: bool = setting(False, "file", "只保存模型", "Save only model",
        "检查点不含优化器状态，不能继续训练", "Checkpoints without optimizer state cannot be resumed")
    gradient_checkpointing: OptionalBool = setting(None, "file", "重算激活值", "Gradient checkpointing",
        "留空由显存决定；true 省显存但慢三分之一", "Empty: decided by the memory; true saves memory, a third slower", "true")
    fsdp: OptionalBool = setting(None, "file", "分片到各设备", "Shard over the devices",
        "每个设备只存一部分权重（FSDP）；留空时 full 与 freeze 分片，LoRA 在模型放不进一个设备时分片",
        "Each device holds a part of the weights (FSDP); empty: for full and freeze, and for LoRA on a model that "
        "does not fit one device", "true")
    plot_loss: bool = setting(True, "file", "绘制损失", "Plot loss",
        "结束时写 training_loss.png", "Write training_loss.png at the end")

    # Keys of LLaMA-Factory files of which we implement one value; any other is refused by name.
    do_train: Yes = setting(True, "file", "训练", "Do train", "须为 true", "Must be true")
    report_to: Literal["none"] = setting("none", "file", "外部记录面板", "External logger",
        "须为 none", "Must be none")
    overwrite_output_dir: No = setting(False, "file", "覆盖输出目录", "Overwrite output dir",
        "须为 false：从不覆盖结果", "Must be false: results are never overwritten")
    eval_strategy: Literal["steps"] = setting("steps", "file", "验证策略", "Eval strategy",
        "须为 steps：每隔若干步验证", "Must be steps: every so many steps")
    metric_for_best_model: Literal["eval_loss"] = setting("eval_loss", "file", "最佳模型的指标", "Metric for best model",
        "须为 eval_loss：验证损失", "Must be eval_loss")
    greater_is_better: No = setting(False, "file", "指标越大越好", "Greater is better",
        "须为 false：验证损失越低越好", "Must be false: the lower the eval loss, the better")
    trust_remote_code: No = setting(False, "file", "信任远程代码", "Trust remote code",
        "须为 false：从不运行模型文件夹里的代码", "Must be false: code in a model's folder is never run")
    # Keys of theirs that only say how work is done, never what comes out.
    overwrite_cache: Any = setting(None, "file", "覆盖缓存", "Overwrite cache",
        "在这里不起作用：没有缓存", "Has no effect here: there is no cache")
    per_device_eval_batch_size: Any = setting(None, "file", "验证批处理大小", "Eval batch size",
        "在这里不起作用：由内存决定", "Has no effect here: the memory decides")
    preprocessing_num_workers: Any = setting(None, "file", "预处理进程数", "Preprocessing workers",
        "在这里不起作用", "Has no effect here")
    dataloader_num_workers: Any = setting(None, "file", "数据加载进程数", "Dataloader workers",
        "在这里不起作用", "Has no effect here")
    ddp_timeout: Any = setting(None, "file", "DDP 超时", "DDP timeout",
        "在这里不起作用", "Has no effect here")
    # fmt: on

    @model_validator(mode="before")
    @classmethod
    def _accept_compute_flags(cls, values: Any) -> Any:
        """LLaMA-Factory writes the compute type as one of three booleans."""
        values = dict(values)
        flags = [flag for flag in ("bf16", "fp16", "pure_bf16") if flag in values]
        chosen = [flag for flag in flags if _switched_on(flag, values.pop(flag))]
        if len(chosen) > 1:
            raise Problem("setting_conflict", first=f"`{chosen[0]}: true`", second=f"`{chosen[1]}: true`")
        if chosen and values.setdefault("compute_type", chosen[0]) != chosen[0]:
            raise Problem(
                "setting_conflict", first=f"`{chosen[0]}: true`", second=f"`compute_type: {values['compute_type']}`"
            )
        return values

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.template not in (known := ["auto", *template_names()]):
            raise _problem("setting_choice", "template", self.template, choices=", ".join(known))
        if self.warmup_steps and self.warmup_ratio:
            raise Problem(
                "setting_conflict",
                first=f"`warmup_steps: {self.warmup_steps}`",
                second=f"`warmup_ratio: {self.warmup_ratio}`",
            )
        if self.lr_scheduler_type == "constant" and (self.warmup_steps or self.warmup_ratio):
            warmup = f"warmup_steps: {self.warmup_steps}" if self.warmup_steps else f"warmup_ratio: {self.warmup_ratio}"
            raise Problem("setting_conflict", first="`lr_scheduler_type: constant`", second=f"`{warmup}`")
        if self.lr_scheduler_type == "polynomial" and self.learning_rate <= 1e-7:  # transformers' end of it
            raise _problem("learning_rate_too_low", "learning_rate", as_text(self.learning_rate),
                           scheduler=self.lr_scheduler_type)  # fmt: skip
        if self.train_on_prompt and self.mask_history:
            raise Problem("setting_conflict", first="`train_on_prompt: true`", second="`mask_history: true`")
        for key in ("eval_steps", "early_stopping_steps", "load_best_model_at_end"):
            if getattr(self, key) and not self.val_size:
                raise Problem("setting_needs", first=self._named(key), second=named("val_size"))
        if self.max_steps == 0:
            raise _problem("setting_range", "max_steps", 0, range=_range(">= 1", "-1"))
        if not self.lora_target:
            raise _problem("setting_missing", "lora_target", "")
        return self

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        """Refuses settings of a method that the run does not use, and methods that exclude each other."""
        for method in ("lora", "freeze"):
            for key in keys(method) if self.finetuning_type != method else []:
                if getattr(self, key) != TrainSettings.model_fields[key].default:
                    raise Problem("setting_needs", first=self._named(key), second=f"`finetuning_type: {method}`")
        if self.freeze_trainable_layers == 0:
            raise _problem("setting_range", "freeze_trainable_layers", 0, range=_range(">= 1", "-1, -2, …"))
        if not self.freeze_trainable_modules:
            raise _problem("setting_missing", "freeze_trainable_modules", "")
        for first, second in self._excluding():
            raise Problem("setting_conflict", first=self._named(first), second=self._named(second))
        return self

    def _excluding(self) -> list[tuple[str, str]]:
        """Pairs of settings that are on and cannot be together."""
        pairs = [("quantization_bit", "pissa_init"), ("quantization_bit", "create_new_adapter")]
        pairs.append(("fsdp", "quantization_bit"))
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
    if isinstance(value, tuple | list):
        return json.dumps(value, ensure_ascii=False) if any("," in item for item in value) else ",".join(value)
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
    """A setting by its label and as a settings file has it, for a Problem's {first} and {second}."""
    written = f"`{key}: {as_text(value)}`" if value is not None else f"`{key}`"
    return {"en": f"{shown(key).en} ({written})", "zh": f"{shown(key).zh}（{written}）"}


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


def read_yaml(path: Path) -> dict[str, Any]:
    """The key-value pairs of a settings file. Raises Problem when it is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        code = "file_missing" if isinstance(error, FileNotFoundError) else "file_unreadable"
        what = {"en": "Settings file", "zh": "设置文件"}
        raise Problem(code, label=what, path=str(path), detail=error.strerror) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also a date that is none, or too deep a nest
        mark = getattr(error, "problem_mark", None)
        detail = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise Problem("yaml_broken", path=str(path), line=mark.line + 1 if mark else 1, detail=detail) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise Problem("yaml_not_mapping", path=str(path), kind=type(values).__name__)
    return values


class _AsTyped(str):
    """A number's own text, which YAML takes without quotes."""


class _Dumper(yaml.SafeDumper):
    pass


def _plain(dumper: yaml.SafeDumper, text: _AsTyped) -> yaml.ScalarNode:
    """A scalar whose tag is the one that its text implies needs neither quotes nor a tag."""
    return dumper.represent_scalar(dumper.resolve(yaml.ScalarNode, str(text), (True, False)), str(text))


_Dumper.add_representer(_AsTyped, _plain)


def to_yaml(settings: TrainSettings, typed: Mapping[str, Any] | None = None) -> str:
    """Every setting that is not at its default or has a control, as YAML in declared order.

    `typed`: numbers as a person wrote them (3e-4, not 0.0003), which are kept where they are given.
    """
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in _written(settings).items()}
    for key, value in values.items():
        if isinstance(value, float) and isinstance(text := (typed or {}).get(key), str) and float(text) == value:
            values[key] = _AsTyped(text.strip())
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def to_flags(settings: TrainSettings) -> list[str]:
    """The command-line flags that give `settings` back."""
    flags = []
    for key, value in _written(settings).items():
        text = as_text(value)
        flags += [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]
    return flags


def to_shell(argv: list[str]) -> str:
    """`argv` as one shell-quoted command, a flag a line."""
    lines: list[str] = []
    words: list[str] = []
    for word in argv:
        if word.startswith("--") and words:
            lines.append(" ".join(words))
            words = []
        words.append(shlex.quote(word))
    return " \\\n    ".join([*lines, " ".join(words)])


def _written(settings: TrainSettings) -> dict[str, Any]:
    """What a file or command needs: no unset values, and settings without a control, or of another method, only
    where changed."""
    others = {"lora", "freeze"} - {settings.finetuning_type}
    return {
        key: value
        for key in TrainSettings.model_fields
        if (value := getattr(settings, key)) is not None
        and (shown(key).group not in ("file", *others) or value != TrainSettings.model_fields[key].default)
    }
