"""What can be said of training methods that do not go together or not with the model,
in both languages: part of SENTENCES. Light."""

METHOD_SENTENCES: dict[str, tuple[str, str]] = {
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
}
