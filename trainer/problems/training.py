"""What can be said of a run that trains: what it went through, and how it ended,
in both languages: part of SENTENCES. Light."""

TRAINING_SENTENCES: dict[str, tuple[str, str]] = {
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
}
