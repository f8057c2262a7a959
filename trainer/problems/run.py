"""What can be said of a run before it trains: its data, its folder, the queue, resuming,
in both languages: part of SENTENCES. Light."""

RUN_SENTENCES: dict[str, tuple[str, str]] = {
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
}
