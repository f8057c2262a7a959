"""Every problem a user can cause or meet, once, in both languages: what was given and what to do.

Light: no torch. Events carry `code` and values; whoever shows them picks the language.
"""

import json
import string
from typing import Any, Literal, get_args

from trainer.data_problems import DATA_SENTENCES
from trainer.device_problems import DEVICE_SENTENCES
from trainer.download_problems import DOWNLOAD_SENTENCES
from trainer.prepare_problems import PREPARE_SENTENCES
from trainer.system_words import in_chinese
from trainer.template_problems import TEMPLATE_SENTENCES
from trainer.upload_problems import UPLOAD_SENTENCES

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

# code -> (en, zh). {label} is a setting's or a field's label in the reader's language.
SENTENCES: dict[str, tuple[str, str]] = {
    **DATA_SENTENCES,
    **DEVICE_SENTENCES,
    **DOWNLOAD_SENTENCES,
    **TEMPLATE_SENTENCES,
    **PREPARE_SENTENCES,
    **UPLOAD_SENTENCES,
    "setting_missing": (
        "{label}: nothing given. Fill it in.",
        "{label}：没有填写。请填写。",
    ),
    "setting_not_number": (
        "{label}: got {value}, which is not a number. Write a number such as {example}.",
        "{label}：给出的是 {value}，不是数字。请填写数字，例如 {example}。",
    ),
    "setting_not_integer": (
        "{label}: got {value}, which is not a whole number. Write a whole number such as {example}.",
        "{label}：给出的是 {value}，不是整数。请填写整数，例如 {example}。",
    ),
    "setting_not_boolean": (
        "{label}: got {value}. Write true or false.",
        "{label}：给出的是 {value}。请填写 true 或 false。",
    ),
    "setting_not_text": (
        "{label}: got {value}, which is not text. Write text.",
        "{label}：给出的是 {value}，不是文字。请填写文字。",
    ),
    "setting_range": (
        "{label}: got {value}. It must be {range}.",
        "{label}：给出的是 {value}。取值须 {range}。",
    ),
    "setting_choice": (
        "{label}: got {value}. Choose one of: {choices}.",
        "{label}：给出的是 {value}。请从中选择：{choices}。",
    ),
    "setting_fixed": (
        "{label}: got {value}. {reason}.",
        "{label}：给出的是 {value}。{reason}。",
    ),
    "setting_unknown": (
        "Setting {key} (value {value}) is not supported: remove it{suggestion}.",
        "不支持设置 {key}（值 {value}），请删去{suggestion}。",
    ),
    "setting_conflict": (
        "Can't use both {first} and {second}. Choose one.",
        "{first} 与 {second} 不能同时使用。请只留一个。",
    ),
    "setting_needs": (
        "{first} has no effect without {second}. Set {second}, or give {first} its default back.",
        "没有 {second} 时 {first} 不起作用。请设置 {second}，或让 {first} 恢复默认值。",
    ),
    "yaml_broken": (
        "Settings file {path} is not valid YAML (line {line}): {detail}",
        "设置文件 {path} 不是有效的 YAML（第 {line} 行）：{detail}",
    ),
    "yaml_not_mapping": (
        "Settings file {path} holds a {kind}, not `key: value` lines. Choose a file saved by Save arguments.",
        "设置文件 {path} 的内容是 {kind}，不是 `键: 值`。请选择“保存训练参数”所存的文件。",
    ),
    "deepspeed_missing": (
        "{label}: got {value}, but this machine lacks {missing}. Install it (`pip install tunedesk[deepspeed]`), or "
        "remove the setting.",
        "{label}：给出的是 {value}，但本机缺少 {missing}。请安装（`pip install tunedesk[deepspeed]`），或删去该设置。",
    ),
    "deepspeed_file": (
        "{label}: {path} is no JSON file of DeepSpeed's. Write 2, 3 or the path of one.",
        "{label}：{path} 不是 DeepSpeed 的 JSON 配置文件。请填写 2、3 或这样一个文件的路径。",
    ),
    "deepspeed_stage": (
        "{label}: {path} has {key}: {value}. Write 2 or 3 there.",
        "{label}：{path} 里的 {key} 是 {value}。请在那里写 2 或 3。",
    ),
    "deepspeed_key": (
        "{label}: {path} has {key}: {value}, which is not supported. Remove it there.",
        "{label}：{path} 里的 {key}: {value} 不受支持。请在那里删去。",
    ),
    "deepspeed_differs": (
        '{label}: {path} has {key}: {value}, but the settings have {other}. Write "auto" there, or the same.',
        '{label}：{path} 里的 {key} 是 {value}，而设置里是 {other}。请在那里写 "auto"，或改为一致。',
    ),
    "file_missing": (
        "{label}: there is no file {path}. Check the path.",
        "{label}：文件 {path} 不存在。请检查路径。",
    ),
    "file_unreadable": (
        "{label}: cannot read {path} ({detail}). Check its permissions.",
        "{label}：无法读取 {path}（{detail}）。请检查权限。",
    ),
    "json_broken": (
        "{label}: not valid JSON at line {line}, column {column}: {detail}. Correct it.",
        "{label}：第 {line} 行第 {column} 列不是有效的 JSON：{detail}。请改正。",
    ),
    "extra_not_object": (
        '{label}: got {value}. Write a JSON object such as {{"weight_decay": 0.01}}.',
        '{label}：给出的是 {value}。请填写 JSON 对象，例如 {{"weight_decay": 0.01}}。',
    ),
    "extra_has_control": (
        "{label}: {key} has its own control on the page, {control}. Set it there.",
        "{label}：{key} 在页面上有自己的控件“{control}”。请在那里设置。",
    ),
    "path_outside": (
        "{label}: {path} lies outside the folders that this page may use. Choose another, or start the page with "
        "--allow-path and that folder.",
        "{label}：{path} 不在本页可用的文件夹之内。请另选，或在启动网页时用 --allow-path 加上该文件夹。",
    ),
    "host_unknown": (
        "--allow-host: got {value}. Write a host name such as gpu.example.org, or .example.org for all names below it.",
        "--allow-host：给出的是 {value}。请填写主机名，例如 gpu.example.org；.example.org 表示其下的所有名称。",
    ),
    "trust_refused": (
        "{label}: this page was started without --trust-remote-code, so it never runs Python code that a model's folder "
        "brings. Leave the setting out, or start the page with that flag if you trust the model's author.",
        "{label}：本页面启动时没有 --trust-remote-code，不会运行模型文件夹自带的 Python 代码。"
        "请去掉该设置；若信任模型作者，可用该参数启动页面。",
    ),
    "model_missing": (
        "{label}: nothing given. Choose a model or type the path of a model folder.",
        "{label}：没有填写。请选择模型，或填写模型文件夹的路径。",
    ),
    "model_not_found": (
        "{label}: there is no folder {path}. Check the path.",
        "{label}：文件夹 {path} 不存在。请检查路径。",
    ),
    "model_not_a_model": (
        "{label}: folder {path} is no model: {missing} is missing. Choose a folder with config.json, "
        "a tokenizer and safetensors weights.",
        "{label}：文件夹 {path} 不是模型：缺少 {missing}。请选择含有 config.json、分词器和 safetensors 权重的文件夹。",
    ),
    "model_config_broken": (
        "{label}: {path} cannot be read ({detail}). Copy the model folder again.",
        "{label}：无法读取 {path}（{detail}）。请重新复制模型文件夹。",
    ),
    "model_unsafe": (
        "{label}: folder {path} has only pickle weights ({file}), which can run code when loaded. "
        "Convert them to safetensors.",
        "{label}：文件夹 {path} 只有 pickle 权重（{file}），加载时可能执行代码。请先转换为 safetensors。",
    ),
    "model_weights_missing": (
        "The model {path} lacks {count} weights that its config.json asks for, {first} the first. "
        "Copy the model folder again.",
        "模型 {path} 缺少 config.json 所要求的 {count} 个权重，第一个是 {first}。请重新复制模型文件夹。",
    ),
    "model_shapes_differ": (
        "The weights of model {path} have other shapes than its config.json says. Copy the model folder again.",
        "模型 {path} 的权重形状与它的 config.json 不一致。请重新复制模型文件夹。",
    ),
    "model_load_failed": (
        "The model {path} could not be loaded: {detail}",
        "模型 {path} 加载失败：{detail}",
    ),
    "model_own_code": (
        "The model {path} works only with its folder's own Python code, which was not run. Choose a version of it that "
        "transformers knows without such code; or, if you trust its author, start the page with --trust-remote-code "
        "(in a terminal: trust_remote_code=true).",
        "模型 {path} 只能靠其文件夹自带的 Python 代码运行，代码没有被运行。请换用 transformers 自身支持的版本；"
        "若信任其作者，可用 --trust-remote-code 启动页面（终端中用 trust_remote_code=true）。",
    ),
    "model_architecture": (
        "The model {path} needs architecture {architecture}, which this version does not know. "
        "Choose another model or upgrade transformers.",
        "模型 {path} 的架构 {architecture} 不受当前版本支持。请换一个模型，或升级 transformers。",
    ),
    "adapter_not_an_adapter": (
        "{label}: {path} is no LoRA checkpoint: {missing} is missing. Choose a checkpoint from the list.",
        "{label}：{path} 不是 LoRA 检查点：缺少 {missing}。请从列表中选择。",
    ),
    "adapter_mismatch": (
        "The checkpoint {path} does not fit the model {model}: {detail}. Choose the model it was trained on.",
        "检查点 {path} 与模型 {model} 不匹配：{detail}。请选择训练它时所用的模型。",
    ),
    "cutoff_over_positions": (
        "{label}: got {value}, and the model {path} has positions for {limit} tokens only. Set it to {limit} or less.",
        "{label}：给出的是 {value}，而模型 {path} 只有 {limit} 个词元的位置。请设为 {limit} 或更小。",
    ),
    "all_truncated": (
        "{label} {value} cuts every sample before its answer: nothing is left to learn. "
        "Raise it; the shortest sample needs {needed}.",
        "{label} {value} 把每条样本都截断在回答之前，没有可学习的内容。请调大；最短的样本需要 {needed}。",
    ),
    "validation_too_small": (
        "{label} {value} leaves {train} of the {total} samples for training and {validation} for validation; both need "
        "at least one. {remedy}",
        "{label} {value}：{total} 条样本中训练 {train} 条、验证 {validation} 条，而两者都至少要有一条。{remedy}",
    ),
    "output_exists": (
        "{label}: {path} already holds a run. Resume it or choose a new folder; nothing was overwritten.",
        "{label}：{path} 已有一次训练。请继续该训练或换一个新目录；没有覆盖任何内容。",
    ),
    "output_not_writable": (
        "{label}: cannot write to {path} ({detail}). Choose another folder.",
        "{label}：无法写入 {path}（{detail}）。请换一个目录。",
    ),
    "output_bad_name": (
        "{label}: {value} cannot be a folder name here ({detail}). Use letters, digits, spaces, - and _.",
        "{label}：{value} 不能用作这里的目录名（{detail}）。请使用文字、数字、空格、- 和 _。",
    ),
    "output_in_use": (
        "{label}: a run is writing to {path} now. Abort it first or choose a new folder.",
        "{label}：有训练正在写入 {path}。请先中断它，或换一个新目录。",
    ),
    "output_in_use_elsewhere": (
        "{label}: {path} was being written on machine {host} a short while ago. Abort it on a page there, wait ten "
        "minutes if that machine is gone, or choose a new folder.",
        "{label}：机器 {host} 不久前还在写入 {path}。请在那台机器的页面上中断它；若那台机器已不在，请等待十分钟；也可换一个新目录。",
    ),
    "queued_already": (
        "{label}: {name} waits in the queue already, at place {place}. Choose a new folder, or cancel it in Runs.",
        "{label}：{name} 已在排队（第 {place} 位）。请换一个新目录，或在“运行记录”里取消排队。",
    ),
    "queue_broken": (
        "{path} in the queue cannot be read ({detail}). Cancel it and start the run anew.",
        "排队文件 {path} 无法读取（{detail}）。请取消它，再重新开始该训练。",
    ),
    "queue_unwritable": (
        "The queue cannot be changed: {path} is not writable ({detail}). Check who may write to it.",
        "无法更改队列：{path} 不可写（{detail}）。请检查写入权限。",
    ),
    "run_gone": (
        "There is no run {name} any more. Choose another one.",
        "已没有名为 {name} 的训练。请另选。",
    ),
    "run_is_training": (
        "{name} is training now. Abort it first; nothing was deleted.",
        "{name} 正在训练。请先中断它；没有删除任何内容。",
    ),
    "run_trains_elsewhere": (
        "{name} was training on machine {host} a short while ago. Abort it on a page there; nothing was deleted.",
        "{name} 不久前还在机器 {host} 上训练。请在那台机器的页面上中断它；没有删除任何内容。",
    ),
    "run_is_queued": (
        "{name} waits in the queue. Cancel that first; nothing was deleted.",
        "{name} 正在排队。请先取消排队；没有删除任何内容。",
    ),
    "run_elsewhere": (
        "{name} is a link to another folder. Remove it in a terminal; nothing was deleted.",
        "{name} 是指向其他文件夹的链接。请在终端里移除；没有删除任何内容。",
    ),
    "run_not_deleted": (
        "{name} could not be deleted ({detail}). Check who may write to {path}.",
        "无法删除 {name}（{detail}）。请检查 {path} 的写入权限。",
    ),
    "compare_count": (
        "Compare takes {least} to {most} runs; {count} chosen.",
        "对比需要选择 {least} 到 {most} 次训练，现选了 {count} 次。",
    ),
    "run_settings_broken": (
        "{name}: its config.yaml cannot be read ({detail}). Choose another run.",
        "{name}：无法读取它的 config.yaml（{detail}）。请另选一次训练。",
    ),
    "already_finished": (
        "{label}: the run in {path} is finished. Choose a new folder; nothing was overwritten.",
        "{label}：{path} 里的训练已经完成。请换一个新目录；没有覆盖任何内容。",
    ),
    "settings_exists": (
        "{label}: {value} exists already and was not overwritten. Choose another name.",
        "{label}：{value} 已存在，没有覆盖。请换一个名称。",
    ),
    "settings_bad_name": (
        "{label}: {value} cannot be a file name here. Use letters, digits, spaces, - and _.",
        "{label}：{value} 不能用作这里的文件名。请使用文字、数字、空格、- 和 _。",
    ),
    "nothing_to_resume": (
        "{label}: {path} holds no complete checkpoint to resume from. Choose a new folder.",
        "{label}：{path} 里没有可供继续的完整检查点。请换一个新目录。",
    ),
    "resume_changed": (
        "Cannot resume: {label} was {before} and is now {after}, which would be another run. Choose a new folder.",
        "无法继续：{label} 原为 {before}，现为 {after}，已是另一次训练。请换一个新目录。",
    ),
    "compute_unsupported": (
        "{label}: {value} does not work on {device}. Choose one of: {choices}.",
        "{label}：{device} 不支持 {value}。请从中选择：{choices}。",
    ),
    "module_unknown": (
        "{label}: the model has no module named {value}. It has: {choices}.",
        "{label}：模型没有名为 {value} 的模块。现有：{choices}。",
    ),
    "module_not_linear": (
        "{label}: {value} is no layer that LoRA can be put on. Choose among: {choices}.",
        "{label}：LoRA 不能加在 {value} 上。请从中选择：{choices}。",
    ),
    "learning_rate_too_low": (
        "{label} {value} is too low for {scheduler}, which ends at 1e-7. Raise it, or choose another scheduler.",
        "{label} {value} 对 {scheduler} 来说太小，它以 1e-7 结束。请调大，或换一个调节器。",
    ),
    "freeze_layers": (
        "{label}: got {value}, but the model has {layers} layers. Choose at most as many.",
        "{label}：给出的是 {value}，而模型有 {layers} 层。请不要超过层数。",
    ),
    "quantization_package": (
        "{label}: {value} needs the package bitsandbytes 0.48 or newer, which is not installed here. "
        "Choose another, or install it: pip install 'tunedesk[quant]'.",
        "{label}：{value} 需要 bitsandbytes 0.48 或更新的软件包，这里没有安装。"
        "请另选，或安装：pip install 'tunedesk[quant]'。",
    ),
    "quantization_device": (
        "{label}: {value} needs the package bitsandbytes, which does not run on this machine's accelerators. "
        "Train without quantization.",
        "{label}：{value} 需要 bitsandbytes 软件包，而它不能在本机的加速卡上运行。请不要量化。",
    ),
    "quantized_already": (
        "{label} must be none: the model in {path} is stored quantized already ({stored}).",
        "{label} 须为 none：{path} 里的模型本身已经量化（{stored}）。",
    ),
    "quantized_needs_lora": (
        "{first} changes the model's own weights, but those in {path} are quantized ({stored}). "
        "Train a plain LoRA, or choose the model that is not quantized.",
        "{first} 要改动模型本身的权重，而 {path} 里的权重已经量化（{stored}）。请训练普通的 LoRA，或选择未量化的模型。",
    ),
    "adapter_differs": (
        "{label}: got {value}, but the checkpoint that is trained further has {theirs}. "
        "Set it to that, or switch on {other}.",
        "{label}：给出的是 {value}，而要继续训练的检查点为 {theirs}。请改为该值，或勾选“{other}”。",
    ),
    "adapter_has_own": (
        "{label}: got {value}, but a checkpoint that is trained further keeps its own. "
        "Switch it off, or switch on {other}.",
        "{label}：给出的是 {value}，而继续训练的检查点沿用自己的设置。请关闭它，或勾选“{other}”。",
    ),
    "stack_not_exact": (
        "{label}: the checkpoint {path} is more than plain LoRA on linear layers (DoRA or additional modules), "
        "so old and new cannot be saved as one adapter. Train it further instead, or choose another checkpoint.",
        "{label}：检查点 {path} 不是线性层上的普通 LoRA（用了 DoRA 或附加模块），"
        "新旧无法合并保存为一个适配器。请改为继续训练它，或换一个检查点。",
    ),
    "stack_targets": (
        "{label}: {value} leaves out {missing}, which the checkpoint below has. Add them, or write all.",
        "{label}：{value} 未包含所选检查点已有的 {missing}。请加上，或填写 all。",
    ),
    "fold_unsupported": (
        "{method} works on plain linear layers with weights of their own; {value} is none. Take it out of {label}.",
        "{method}只适用于权重独立的普通线性层，{value} 不是。请把它从{label}中去掉。",
    ),
    "pissa_rank": (
        "{label}: got {value}, but the smallest layer that PiSSA starts from has rank {most}. Choose at most that.",
        "{label}：给出的是 {value}，而 PiSSA 所用的最小的层秩为 {most}。请不要超过它。",
    ),
    "samples_dropped": (
        "{count} samples were left out: a cutoff length of {cutoff_len} cuts them before their answer.",
        "{count} 条样本未参与训练：截断长度 {cutoff_len} 使其回答被全部截掉。",
    ),
    "samples_cut": (
        "{count} samples were cut at {cutoff_len} tokens.",
        "{count} 条样本在 {cutoff_len} 个词元处被截断。",
    ),
    "token_budget_halved": (
        "Memory was short: forward passes now take {budget} tokens. The result does not change.",
        "内存不足：每次前向计算改为 {budget} 个词元，结果不变。",
    ),
    "checkpointing_switched_on": (
        "Memory was short for a sample of {tokens} tokens: activations are computed twice instead of kept, which is "
        "a third slower. The result does not change.",
        "内存放不下 {tokens} 个词元的样本：激活值改为重算而不保存，约慢三分之一，结果不变。",
    ),
    "sample_too_long": (
        "A single sample of {tokens} tokens does not fit into the memory of {device}. Set {label} below that length, "
        "or use a smaller model or quantization.",
        "单条 {tokens} 个词元的样本放不进 {device} 的内存。请把{label}设到更小，或换更小的模型、使用量化。",
    ),
    "sharded_sample_too_long": (
        "A single sample of {tokens} tokens does not fit into the memory of {device}, with the weights shared out over "
        "{count} devices. Set {label} below that length, use more devices, or choose LoRA or a smaller model.",
        "权重已分片到 {count} 个设备，单条 {tokens} 个词元的样本仍放不进 {device} 的内存。"
        "请把{label}设到更小、使用更多设备，或改用 LoRA、换更小的模型。",
    ),
    "started_again": (
        "Memory was short in one of the processes: all have started again and go on after step {step}; the steps since "
        "then are repeated, with the same result.",
        "某个进程内存不足：所有进程已重新启动，从第 {step} 步之后继续；其后的步会重做，结果相同。",
    ),
    "out_of_device_memory": (
        "Out of memory on {device}. Lower the batch size or the cutoff length, or choose LoRA.",
        "{device} 内存不足。请调小批处理大小或截断长度，或改用 LoRA。",
    ),
    "out_of_host_memory": (
        "The machine ran out of memory and the process was killed. Close other programs or choose a smaller model.",
        "机器内存不足，进程被系统终止。请关闭其他程序，或换更小的模型。",
    ),
    "disk_full": (
        "No space left on the disk while writing {path}. Free some space, then resume from the last complete "
        "checkpoint, or start again if none was saved yet.",
        "写入 {path} 时磁盘已满。请清理磁盘，再从最近的完整检查点继续训练；若尚未保存过，请重新开始。",
    ),
    "loss_not_finite": (
        "The loss became {value} at step {step}. Lower the learning rate or choose bf16 or fp32.",
        "第 {step} 步的损失变成了 {value}。请调小学习率，或改用 bf16、fp32。",
    ),
    "python_error": (
        "The program failed with {kind}: {detail}. The log has the details.",
        "程序出错：{kind}：{detail}。详情见日志。",
    ),
    "killed": (
        "The process was killed from outside ({signal}). Start again, or resume from the last checkpoint.",
        "进程被外部终止（{signal}）。请重新开始，或从最近的检查点继续。",
    ),
    "record_damaged": (
        "The run's record {file} is missing or damaged, so how it ended cannot be told; its checkpoints are as they were. "
        "Resume from the last one, or start again.",
        "这次训练的记录文件 {file} 丢失或损坏，无法得知它如何结束；检查点不受影响。请从最近的检查点继续，或重新开始。",
    ),
    "vanished": (
        "The process vanished without a word: killed from outside, or for want of memory. "
        "Resume from the last checkpoint, or start again.",
        "进程突然消失：被外部终止，或内存不足。请从最近的检查点继续，或重新开始。",
    ),
    "killed_unseen": (
        "The process ended without a word, as when it is killed from outside: by kill -9, or with its container, job or "
        "terminal; it was not the kernel for want of memory. Resume from the last checkpoint, or start again.",
        "进程没有留下原因就结束了，应是被外部强行终止：kill -9，或所在的容器、作业或终端被关闭；"
        "并非因内存不足被内核终止。请从最近的检查点继续，或重新开始。",
    ),
    "killed_while_stopping": (
        "The process was asked to end and then killed before it had saved, as Slurm and Kubernetes do when the time "
        "they give is over. Resume from the last checkpoint, or start again; give it more time to end.",
        "进程被要求结束，但还没保存完就被强行终止，Slurm 和 Kubernetes 在宽限时间用完后会这样做。"
        "请从最近的检查点继续，或重新开始；并给它更长的结束时间。",
    ),
    "crashed": (
        "The program crashed in a library ({detail}): a defect of a driver or package, not of the settings. "
        "Resume from the last checkpoint; if it happens again, send the log to whoever looks after the machine.",
        "程序在某个库中崩溃（{detail}）：是驱动或软件包的缺陷，与设置无关。"
        "请从最近的检查点继续；如再次发生，请把日志交给维护机器的人。",
    ),
    "not_started": (
        "The trainer ended before it had begun: {detail} Correct that, then start again.",
        "训练程序还没开始就结束了：{detail} 请改正后重新开始。",
    ),
    "run_copied": (
        "This is a copy of the run in {path}, made while that was training. Resume it from its last checkpoint, or go "
        "to the original.",
        "这是 {path} 的副本，复制时原训练仍在进行。可从它最近的检查点继续，或查看原训练。",
    ),
    "run_folder_gone": (
        "The run's folder {path} was moved or deleted while it was training. If it was moved, resume it where it is now.",
        "训练进行中，其目录 {path} 被移走或删除。如果是移走了，请在新位置继续训练。",
    ),
    "checkpoint_broken": (
        "The checkpoint {path} cannot be read ({detail}). Delete this folder, then resume from the one before it.",
        "检查点 {path} 无法读取（{detail}）。请删除这个目录，再从前一个检查点继续。",
    ),
    "stopped_from_outside": (
        "The run was asked to end by {signal} from outside this page: by kill, Slurm, Kubernetes, or its container being "
        "stopped, or the machine being shut down.",
        "训练收到页面之外的 {signal} 信号而结束：来自 kill、Slurm、Kubernetes，或其容器被停止，或机器正在关机。",
    ),
    "died": (
        "The process ended without a word. Look at the end of the log.",
        "进程意外结束，没有留下原因。请看日志末尾。",
    ),
    "best_checkpoint_missing": (
        "The checkpoint with the lowest eval loss, {path}, is gone. The result is that of step {step}.",
        "验证损失最低的检查点 {path} 已不在，结果取第 {step} 步。",
    ),
    "process_died": (
        "Process {rank} on machine {host} was ended from outside or for want of memory ({detail}), and the others "
        "with it. Resume from the last checkpoint, or start again.",
        "机器 {host} 上的第 {rank} 号进程被外部终止或因内存不足而结束（{detail}），其余进程随之结束。"
        "请从最近的检查点继续，或重新开始。",
    ),
    "master_missing": (
        "{nodes} machines need one address to meet at. Set the address of the first machine (MASTER_ADDR).",
        "{nodes} 台机器需要一个共同的地址。请填写第一台机器的地址（MASTER_ADDR）。",
    ),
    "address_bad": (
        "{label}: got {value}. Write a host name or an IP address such as 192.168.0.1.",
        "{label}：给出的是 {value}。请填写主机名或 IP 地址，例如 192.168.0.1。",
    ),
    "machines_apart": (
        "The machines could not meet at {address} ({detail}). Check the address, and that its port is free and can "
        "be reached from every machine (MASTER_ADDR, MASTER_PORT).",
        "各机器无法在 {address} 会合（{detail}）。请检查地址，并确认端口空闲且每台机器都能访问"
        "（MASTER_ADDR、MASTER_PORT）。",
    ),
    "address_unknown": (
        "MASTER_ADDR: no machine is known by the name {address} ({detail}). Write the first machine's host name or IP "
        "address.",
        "MASTER_ADDR：找不到名为 {address} 的机器（{detail}）。请填写第一台机器的主机名或 IP 地址。",
    ),
    "address_elsewhere": (
        "MASTER_ADDR: {address} does not lead to this machine ({detail}), which is the first one (NODE_RANK 0). "
        "Write an address of this machine, and let its firewall pass the port.",
        "MASTER_ADDR：{address} 不指向本机（{detail}），而本机是第一台机器（NODE_RANK 0）。"
        "请填写本机的地址，并让防火墙放行该端口。",
    ),
    "port_taken": (
        "MASTER_PORT: {port} cannot be used on this machine ({detail}). Choose another port, on all machines.",
        "MASTER_PORT：本机的端口 {port} 无法使用（{detail}）。请在所有机器上换一个端口。",
    ),
    "first_machine_silent": (
        "The first machine did not answer at {address} within {seconds} s ({detail}). Check MASTER_ADDR and "
        "MASTER_PORT, that the run has been started there, and that no firewall is between.",
        "第一台机器在 {seconds} 秒内没有在 {address} 应答（{detail}）。请检查 MASTER_ADDR 和 MASTER_PORT，"
        "确认那台机器已启动训练，且没有防火墙阻挡。",
    ),
    "machines_missing": (
        "Only {here} of {machines} machines have come to {address} within {seconds} s. Start the command on each of "
        "them, and check that they can reach this address.",
        "{seconds} 秒内只有 {here} 台机器到达 {address}，共需 {machines} 台。"
        "请在每台机器上运行命令，并确认它们能访问该地址。",
    ),
    "first_machine_lost": (
        "The first machine, {address}, has ended the run or cannot be reached any more. See there for the reason.",
        "第一台机器 {address} 已结束训练或无法再连接。原因请看那台机器。",
    ),
    "connection_lost": (
        "The connection to another process was lost ({detail}): it, its machine or the network failed. "
        "Resume from the last checkpoint, or start again.",
        "与另一个进程的连接中断（{detail}）：该进程、所在机器或网络出了故障。请从最近的检查点继续，或重新开始。",
    ),
    "machine_silent": (
        "Machine {machine} has given no sign of life for {seconds} s. See whether it and its network are up, then "
        "resume from the last checkpoint.",
        "第 {machine} 台机器已有 {seconds} 秒没有响应。请检查该机器和网络，然后从最近的检查点继续。",
    ),
    "node_rank_outside": (
        "NODE_RANK: got {value}; with {nodes} machines it must be 0 to {last}.",
        "NODE_RANK：给出的是 {value}；共 {nodes} 台机器时须为 0 到 {last}。",
    ),
    "environment_not_count": (
        "{name}: got {value}. It must be a whole number from {least} to {most}.",
        "{name}：给出的是 {value}。须为 {least} 到 {most} 的整数。",
    ),
    "more_processes_than_devices": (
        "{processes} processes were asked for and {devices} devices can be seen. Ask for {devices} or fewer "
        "(NPROC_PER_NODE), or choose more devices.",
        "要求 {processes} 个进程，但只有 {devices} 个可见设备。请减少进程数（NPROC_PER_NODE），或选择更多设备。",
    ),
    "sharded_out_of_memory": (
        "Out of memory on {device}, whose weights are shared out over {count} devices. "
        "Use more devices, switch gradient checkpointing on, or lower the cutoff length.",
        "{device} 内存不足；权重已分片到 {count} 个设备。请使用更多设备、打开梯度检查点，或调小截断长度。",
    ),
    "machine_restarted": (
        "The machine was restarted during the run. Resume from the last checkpoint.",
        "训练途中机器重新启动过。请从最近的检查点继续。",
    ),
    "host_silent": (
        "This run is on machine {host}, of which nothing has been heard for {ago}: the machine is lost or off, or the run "
        "was ended there. Only {host} can tell; if it is over, resume from the last checkpoint.",
        "这次训练在机器 {host} 上，已有 {ago}没有新记录：那台机器失联或关机，或训练在那里被终止，本机无法判断。"
        "确认它已结束后，请从最近的检查点继续。",
    ),
    "container_ended": (
        "The container that it trained in ({host}) ended before the run had saved. Resume from the last checkpoint, or "
        "start again; give the container more time to stop (docker stop -t, terminationGracePeriodSeconds).",
        "训练所在的容器（{host}）在保存之前就结束了。请从最近的检查点继续，或重新开始；"
        "请给容器更多停止时间（docker stop -t、terminationGracePeriodSeconds）。",
    ),
    "other_host": (
        "This run belongs to machine {host}; only that machine can tell whether it is alive.",
        "这次训练属于机器 {host}，只有那台机器能判断它是否仍在运行。",
    ),
    "root_path_unknown": (
        "--root-path: got {value}, which is no path prefix. Write one such as /tunedesk.",
        "--root-path：给出的是 {value}，不是路径前缀。请填写例如 /tunedesk。",
    ),
    "trusted_proxy_unknown": (
        "--trusted-proxies: got {value} ({detail}). Write addresses or networks such as 10.0.0.0/8, separated by commas.",
        "--trusted-proxies：给出的是 {value}（{detail}）。请填写地址或网段，例如 10.0.0.0/8，用逗号分隔。",
    ),
    "port_in_use": (
        "Port {port} on {host} cannot be used ({detail}). Choose another: --port, or PORT=… make run.",
        "{host} 的端口 {port} 无法使用（{detail}）。请换一个：--port，或 PORT=… make run。",
    ),
    "host_not_here": (
        "--host {host}: this machine has no such address. Leave it out for this machine alone, or give 0.0.0.0 for all of "
        "its networks.",
        "--host {host}：本机没有这个地址。仅供本机使用请不加 --host；若要用于本机的所有网络，请填写 0.0.0.0。",
    ),
    "token_needed": (
        "--no-token lets everyone in who reaches {host}. Use it with --host 127.0.0.1, or add --insecure.",
        "--no-token 会让能访问 {host} 的任何人进入。请与 --host 127.0.0.1 一起使用，或再加上 --insecure。",
    ),
    "chat_busy": (
        "Another reply is being written. Wait for it or press Stop.",
        "正在生成另一条回复。请等它完成，或点击停止。",
    ),
    "chat_not_loaded": (
        "No model is loaded. Load a model first.",
        "模型未加载，请先加载模型。",
    ),
    "chat_too_long": (
        "The conversation has {tokens} tokens and the model takes {limit}. Clear the history.",
        "对话已有 {tokens} 个词元，模型最多接受 {limit} 个。请清空历史。",
    ),
    "chat_empty": (
        "The message is empty. Write something.",
        "消息是空的。请输入内容。",
    ),
    "chat_loading": (
        "A model is being loaded. Wait for it or unload it.",
        "正在加载模型。请等它完成，或点击卸载模型。",
    ),
    "chat_unloaded": (
        "The model was unloaded before it was ready.",
        "模型在加载完成前被卸载。",
    ),
    "chat_killed": (
        "The chat process was killed from outside ({signal}). Load the model again; the conversation is kept.",
        "对话进程被外部终止（{signal}）。请重新加载模型；对话仍在。",
    ),
    "chat_died": (
        "The chat process ended by itself ({detail}). Load the model again; {log} may say why.",
        "对话进程自行结束（{detail}）。请重新加载模型；原因可能在 {log} 中。",
    ),
    "chat_out_of_memory": (
        "Out of memory on {device}. Clear the history, or load a smaller model.",
        "{device} 内存不足。请清空历史，或加载更小的模型。",
    ),
    "chat_not_finite": (
        "The model computes {value} instead of numbers. Choose another checkpoint, or load it as fp32.",
        "模型算出的不是数，而是 {value}。请换一个检查点，或以 fp32 加载。",
    ),
    "chat_protocol": (
        "The chat process was sent a request that it does not understand: {detail}",
        "对话进程收到了无法理解的请求：{detail}",
    ),
    "serve_key_needed": (
        "--no-api-key lets everyone in who reaches {host}. Use it with --host 127.0.0.1 only.",
        "--no-api-key 会让能访问 {host} 的任何人进入。请只与 --host 127.0.0.1 一起使用。",
    ),
    "serve_adapter_form": (
        "--adapter: got {value}. Write NAME=DIR, for example --adapter mine=runs/mine.",
        "--adapter：给出的是 {value}。请写成 名称=文件夹，例如 --adapter mine=runs/mine。",
    ),
    "serve_name_taken": (
        "--adapter: the name {name} is taken already. Choose another.",
        "--adapter：名称 {name} 已被占用。请换一个。",
    ),
    "serve_key_wrong": (
        "The API key is missing or wrong. Send the one that this server was started with: Authorization: Bearer KEY.",
        "缺少 API 密钥，或密钥不对。请使用启动此服务时的密钥：Authorization: Bearer KEY。",
    ),
    "serve_name_asked": (
        "Without an API key this server answers to 127.0.0.1 and localhost only, not to {host}.",
        "没有 API 密钥时，此服务只应答 127.0.0.1 和 localhost，不应答 {host}。",
    ),
    "serve_nothing_there": (
        "There is nothing at {method} {path}. Use GET /v1/models or POST /v1/chat/completions.",
        "{method} {path} 不存在。请使用 GET /v1/models 或 POST /v1/chat/completions。",
    ),
    "serve_model_unknown": (
        "model: got {value}, which is not served here. Choose one of: {choices}.",
        "model：给出的是 {value}，此服务没有它。请从中选择：{choices}。",
    ),
    "serve_full": (
        "{waiting} requests are waiting already. Try again in {seconds} s.",
        "已有 {waiting} 个请求在排队。请 {seconds} 秒后再试。",
    ),
    "serve_ending": (
        "The server is being shut down. Ask again when it is back.",
        "服务正在关闭。请在它恢复后再试。",
    ),
    "serve_body_large": (
        "The request is larger than {limit} bytes. Shorten it.",
        "请求超过 {limit} 字节。请缩短。",
    ),
    "serve_body_not_json": (
        "The request is not application/json. Send it with that Content-Type.",
        "请求不是 application/json。请以该 Content-Type 发送。",
    ),
    "serve_field": (
        "{field}: got {value}. It must be {needed}.",
        "{field}：给出的是 {value}。它须为{needed}。",
    ),
    "serve_unsupported": (
        "{field}: got {value}, which is not supported. Remove it, or give it {neutral}.",
        "{field}：给出的是 {value}，不受支持。请删去，或改为 {neutral}。",
    ),
    "remote_address": (
        "Server address: got {value}. Write one such as http://10.0.0.5:8000/v1, without user name, ? or #.",
        "服务地址：给出的是 {value}。请填写形如 http://10.0.0.5:8000/v1 的地址，不带用户名、? 和 #。",
    ),
    "api_key_form": (
        "API key: it holds a space or a character that a key cannot have. Use letters, digits, - and _ only.",
        "API 密钥：含有空格或密钥中不能有的字符。请只使用字母、数字、- 和 _。",
    ),
    "remote_unreachable": (
        "{url} cannot be reached ({detail}). Check the address, and that the server is running.",
        "无法连接 {url}（{detail}）。请检查地址，并确认服务已启动。",
    ),
    "remote_certificate": (
        "The certificate of {url} is not trusted ({detail}). Use the name that it was made for, set SSL_CERT_FILE to "
        "your own authority, or write http:// if the server speaks no TLS.",
        "{url} 的证书不受信任（{detail}）。请使用证书上的域名，用 SSL_CERT_FILE 指定自己的证书机构；"
        "如果服务没有 TLS，请写 http://。",
    ),
    "remote_key_refused": (
        "{url} refuses the API key (HTTP {status}). Enter the key that the server was started with.",
        "{url} 拒绝了 API 密钥（HTTP {status}）。请填写启动该服务时的密钥。",
    ),
    "remote_not_found": (
        "{url} does not exist on that server (HTTP 404). The address of an OpenAI-compatible server ends with /v1 as a "
        "rule.",
        "服务器上没有 {url}（HTTP 404）。OpenAI 兼容服务的地址通常以 /v1 结尾。",
    ),
    "remote_model_gone": (
        "The server has no model {model} (HTTP 404). Choose another from the list.",
        "该服务没有模型 {model}（HTTP 404）。请从列表中另选一个。",
    ),
    "remote_busy": (
        "The server takes no more requests now (HTTP {status}): {detail} Try again soon.",
        "服务暂时不再接受请求（HTTP {status}）：{detail} 请稍后再试。",
    ),
    "remote_refused": (
        "The server refused the request (HTTP {status}): {detail}",
        "服务拒绝了请求（HTTP {status}）：{detail}",
    ),
    "remote_broken": (
        "{url} does not answer as an OpenAI-compatible server: {detail}",
        "{url} 的应答不符合 OpenAI 兼容服务：{detail}",
    ),
    "remote_failed": (
        "The server failed while it answered: {detail} What has come so far is kept.",
        "服务在应答时出错：{detail} 已收到的内容仍保留。",
    ),
    "remote_lost": (
        "The connection to {url} broke off while it answered ({detail}). What has come so far is kept.",
        "{url} 应答时连接中断（{detail}）。已收到的内容仍保留。",
    ),
    "compare_nothing": (
        "Compare: no column has a checkpoint. Choose at least one.",
        "对比：没有选择任何检查点。请至少选择一个。",
    ),
    "server_model_missing": (
        "Model of the server: nothing chosen. Press Connect and choose one of its models.",
        "服务的模型：没有选择。请点击“连接”，再从列表中选择。",
    ),
    "chat_column_model": (
        "{path} is a model of its own, not a LoRA checkpoint: it cannot stand beside the loaded one. Load it as the model.",
        "{path} 本身就是完整的模型，不是 LoRA 检查点，不能与已加载的模型并排比较。请把它作为模型加载。",
    ),
    "tools_not_list": (
        '{label}: got {value}. Write a JSON list of tools: [{{"name": …, "description": …, "parameters": …}}].',
        '{label}：给出的是 {value}。请填写工具的 JSON 列表：[{{"name": …, "description": …, "parameters": …}}]。',
    ),
    "tools_wrong": (
        "{label}: tool {number} ({value}) lacks {wanted}. Correct it.",
        "{label}：第 {number} 个工具（{value}）缺少{wanted}。请改正。",
    ),
    "tools_unsupported": (
        "{label}: the chat template {template} knows no tools. Empty the list, or choose a template or a model that does.",
        "{label}：对话模板 {template} 不支持工具。请清空列表，或换用支持工具的模板或模型。",
    ),
    "export_nothing": (
        "Nothing to export: no checkpoint is chosen, and {path} has data type {dtype} already. "
        "Choose a checkpoint, or another data type (infer_dtype).",
        "没有可导出的内容：没有选择检查点，而 {path} 的数据类型已是 {dtype}。请选择检查点，或换一种数据类型（infer_dtype）。",
    ),
    "export_exists": (
        "{label}: {path} exists and is not empty. Choose a new folder; nothing was overwritten.",
        "{label}：{path} 已存在且不为空。请换一个新目录；没有覆盖任何内容。",
    ),
    "export_mount": (
        "{label}: {path} is a mounted volume, which the finished model cannot be moved onto. Choose a folder inside it.",
        "{label}：{path} 是挂载的卷，导出完成的模型无法移到它的位置。请选择它里面的一个目录。",
    ),
    "export_inside_source": (
        "{label}: {path} lies inside {source}, which is only read. Choose a folder elsewhere.",
        "{label}：{path} 在 {source} 之内，而后者只供读取。请选择别处的目录。",
    ),
    "export_no_space": (
        "{label}: {path} needs {needed} GB and the disk has {free} GB free. Free some space, or choose another disk.",
        "{label}：{path} 需要 {needed} GB，磁盘只剩 {free} GB。请清理磁盘，或换一个磁盘。",
    ),
    "export_in_use": (
        "{label}: another export is writing to {path} now. Wait for it, cancel it, or choose a new folder.",
        "{label}：另一次导出正在写入 {path}。请等它完成、取消它，或换一个新目录。",
    ),
    "export_running": (
        "An export to {path} is running, and this page follows one at a time. Wait for it or cancel it, then export again.",
        "正在导出到 {path}，本页一次只进行一个导出。请等它完成或取消它，再重新导出。",
    ),
    "export_other_base": (
        "{label}: {path} was trained on {theirs}, not on {model}. Choose that model. If it is the same model in "
        "another place, write its path into base_model_name_or_path in {file}.",
        "{label}：{path} 是在 {theirs} 上训练的，而不是 {model}。请选择那个模型。"
        "如果是放在别处的同一个模型，请把它的路径写入 {file} 的 base_model_name_or_path。",
    ),
    "export_quantized_base": (
        "{label}: the weights of {path} are stored quantized ({method}), which nothing can be merged into. "
        "Choose the original model that it was made from.",
        "{label}：{path} 的权重是量化后存储的（{method}），无法合并。请选择量化之前的原模型。",
    ),
    "export_not_lora": (
        "{label}: {path} is a {kind} adapter; only LoRA can be merged into a model. Choose another checkpoint.",
        "{label}：{path} 是 {kind} 适配器，只有 LoRA 能合并到模型中。请换一个检查点。",
    ),
    "export_not_finite": (
        "The merged weights of {name} are not all numbers: the checkpoint is damaged, or its values are too large for "
        "{dtype}. Choose another checkpoint, or infer_dtype float32. Nothing was exported.",
        "{name} 合并后的权重含有无效数值：检查点已损坏，或数值超出 {dtype} 的范围。"
        "请换一个检查点，或将 infer_dtype 设为 float32。没有导出任何内容。",
    ),
    "export_differs": (
        "The exported model answers otherwise than the checkpoint on its base: its logits differ by {difference}, and "
        "{tolerance} is allowed for {dtype}. Nothing was exported; try infer_dtype float32.",
        "导出的模型与原模型加检查点的回答不一致：logits 相差 {difference}，而 {dtype} 只允许 {tolerance}。"
        "没有导出任何内容；可将 infer_dtype 设为 float32 再试。",
    ),
    "export_tokenizer_differs": (
        "The exported tokenizer splits text otherwise than that of {path}. Nothing was exported.",
        "导出的分词器与 {path} 的分词结果不一致。没有导出任何内容。",
    ),
    "export_effect_small": (
        "The checkpoint changes the logits by {effect} only, and rounding to {dtype} by {difference}: part of what was "
        "learnt may be lost. Export with infer_dtype float32 to keep it.",
        "检查点只让 logits 改变 {effect}，而舍入为 {dtype} 的误差为 {difference}：学到的内容可能部分丢失。"
        "将 infer_dtype 设为 float32 导出可以保留。",
    ),
    "export_disk_full": (
        "No space left on the disk while writing {path}. Nothing was kept; free some space, then export again.",
        "写入 {path} 时磁盘已满，没有留下任何内容。请清理磁盘后重新导出。",
    ),
    "export_out_of_memory": (
        "Out of memory on {device} while exporting. Close other programs, or set export_device to cpu.",
        "导出时 {device} 内存不足。请关闭其他程序，或将 export_device 设为 cpu。",
    ),
    "export_killed": (
        "The export was ended from outside ({signal}). Nothing was exported; start it again.",
        "导出进程被外部终止（{signal}）。没有导出任何内容，请重新开始。",
    ),
    "export_died": (
        "The export ended without a word: ended from outside, or for want of memory. Nothing was exported; start it "
        "again. {log} may say why.",
        "导出进程意外结束：被外部终止，或内存不足。没有导出任何内容，请重新开始。原因可能在 {log} 中。",
    ),
}


def _shown(value: Any, language: Language) -> Any:
    if isinstance(value, dict) and set(LANGUAGES) <= set(value):
        return value[language]
    return value


def sentence(code: str, values: dict[str, Any], language: Language) -> str:
    """The sentence of `code` in `language`, filled with `values`.

    A value may be a mapping {"en": …, "zh": …} (a label, a range). Unknown codes, as an
    older page may meet in a newer run's events, are shown as they are.
    """
    if code not in SENTENCES:
        return f"{code} {json.dumps(values, ensure_ascii=False, default=str)}"
    text = SENTENCES[code][LANGUAGES.index(language)]
    shown = {key: _shown(value, language) for key, value in values.items()}
    if language == "zh" and isinstance(shown.get("detail"), str):
        shown["detail"] = in_chinese(shown["detail"])
    names = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    return text.format(**{name: shown.get(name, "?") for name in names})


class Problem(ValueError):
    """The user's mistake or misfortune: a `code` of SENTENCES and the values that fill it."""

    def __init__(self, code: str, **values: Any) -> None:
        assert code in SENTENCES, code
        self.code = code
        self.values = values
        super().__init__(sentence(code, values, "en"))

    def sentence(self, language: Language) -> str:
        return sentence(self.code, self.values, language)


class Problems(ValueError):
    """Several problems found at once, in the order in which the settings are declared."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def quoted(value: Any) -> str:
    """`value` as shown inside a sentence: one line, at most 80 characters, in back quotes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    text = " ".join(text.encode(errors="backslashreplace").decode().split())  # half of a character cannot be printed
    return f"`{text[:80]}…`" if len(text) > 80 else f"`{text}`"
