"""What is said where a run or a chat computes on the processor although there is an accelerator, in both languages:
part of SENTENCES. Light."""

DEVICE_SENTENCES: dict[str, tuple[str, str]] = {
    "npu_not_loaded": (
        "This runs on the processor: torch-npu {npu} could not be loaded. It says: “{detail}”. "
        "torch-npu {npu} needs {wanted_cann} (CANN here: {cann}), and its environment set: "
        "source …/ascend-toolkit/set_env.sh. `tunedesk doctor` checks what is installed.",
        "正在用处理器运行：torch-npu {npu} 无法加载。它报告：“{detail}”。"
        "torch-npu {npu} 需要 {wanted_cann}（本机的 CANN：{cann}），并设置其环境：source …/ascend-toolkit/set_env.sh。"
        "运行 tunedesk doctor 可检查已安装的版本。",
    ),
    "npu_other_torch": (
        "This runs on the processor: torch-npu {npu} was built for torch {wanted_torch}, and torch {torch} is installed. "
        "Install {install}, with {wanted_cann} (CANN here: {cann}). "
        "`tunedesk doctor` checks what is installed.",
        "正在用处理器运行：torch-npu {npu} 是为 torch {wanted_torch} 构建的，而这里安装的是 torch {torch}。"
        "请安装 {install}，并使用 {wanted_cann}（本机的 CANN：{cann}）。"
        "运行 tunedesk doctor 可检查已安装的版本。",
    ),
    "accelerators_need_package": (
        "This runs on the processor although the machine has {devices}: {package} is not installed. "
        "Install {wanted}. `tunedesk doctor` checks what is installed.",
        "本机有 {devices}，却在用处理器运行：没有安装 {package}。请安装 {wanted}。运行 tunedesk doctor 可检查已安装的版本。",
    ),
    "accelerators_need_torch": (
        "This runs on the processor although the machine has {devices}: the torch that is installed ({torch}) is built "
        "for processors alone. Install the build for this machine's driver, as https://pytorch.org says.",
        "本机有 {devices}，却在用处理器运行：已安装的 torch（{torch}）是仅支持处理器的版本。"
        "请按 https://pytorch.org 的说明安装与本机驱动相符的版本。",
    ),
    "accelerators_hidden": (
        "This runs on the processor although the machine has {devices}: {variable} is {value}, and torch finds none of "
        "that name. Name those that there are{order}, or unset it.",
        "本机有 {devices}，却在用处理器运行：{variable} 为 {value}，torch 找不到这样的设备。请填写存在的设备{order}，或取消该变量。",
    ),
    "accelerators_unseen": (
        "This runs on the processor although the machine has {devices}: torch {torch} cannot use them. "
        "The driver may be older than this torch needs, or closed to this user. `tunedesk doctor` says more.",
        "本机有 {devices}，却在用处理器运行：torch {torch} 无法使用它们。可能是驱动比此版本 torch 所需的旧，或当前用户无权访问。"
        "运行 tunedesk doctor 可了解详情。",
    ),
}
