"""What can be said of an export, in both languages: part of SENTENCES. Light."""

EXPORT_SENTENCES: dict[str, tuple[str, str]] = {
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
    "export_no_bias": (
        "{label}: {path} was trained with lora_bias, and {layer} of the model has no bias to merge it into. Choose "
        "another checkpoint, or use this one beside its model, without an export.",
        "{label}：{path} 是用 lora_bias 训练的，而模型的 {layer} 没有可供合并的偏置。请换一个检查点，或不导出，直接与原模型一起使用。",
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
