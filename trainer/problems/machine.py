"""What can be said of several processes and machines that train together,
in both languages: part of SENTENCES. Light."""

MACHINE_SENTENCES: dict[str, tuple[str, str]] = {
    "process_died": (
        "Process {rank} on machine {host} was ended from outside or for want of memory ({detail}), and the others "
        "with it. Resume from the last checkpoint, or start again.",
        "机器 {host} 上的第 {rank} 号进程被外部终止或因内存不足而结束（{detail}），其余进程随之结束。"
        "请从最近的检查点继续，或重新开始。",
    ),
    "process_failed": (
        "Process {rank} on machine {host} failed and could not say why in the run's events ({detail}), and the others "
        "ended with it. The last lines of train.log, or of the terminal on {host}, have the reason.",
        "机器 {host} 上的第 {rank} 号进程出错结束，没能在训练记录中写明原因（{detail}），其余进程随之结束。"
        "原因见 train.log 或 {host} 的终端的最后几行。",
    ),
    "machines_differ": (
        "{label} is {first} on machine 1 and {value} on machine {machine}: they would not train the same. Run the same "
        "command with the same versions on all machines.",
        "{label}：第 1 台机器上为 {first}，第 {machine} 台机器上为 {value}，训练的内容会不一致。"
        "请在所有机器上使用相同的版本、运行同一条命令。",
    ),
    "machines_weights_differ": (
        "{label}: {path} on machine {machine} does not hold the same weights as {first} on machine 1. Copy the folder, "
        "or put it on a shared disk.",
        "{label}：第 {machine} 台机器上的 {path} 与第 1 台机器上的 {first} 权重不同。请复制该目录，或放在共享盘上。",
    ),
    "machines_data_differ": (
        "Machine {machine} has read other training samples ({count}) than machine 1 ({first}). Put the same dataset files "
        "and the same model's tokenizer on all machines, or on a shared disk.",
        "第 {machine} 台机器读到的训练样本（{count} 条）与第 1 台机器（{first} 条）不同。"
        "请让所有机器使用相同的数据集文件和同一模型的分词器，或放在共享盘上。",
    ),
    "machines_checkpoint_differs": (
        "Machine 1 resumes after step {first}, but the checkpoint that machine {machine} finds is of step {step} (0: there "
        "is none). Copy machine 1's checkpoint to the same folder there, or put the output folder on a shared disk.",
        "第 1 台机器从第 {first} 步之后继续，而第 {machine} 台机器找到的检查点是第 {step} 步的（0 表示没有）。"
        "请把第 1 台机器的检查点复制到那里的同一目录，或把输出目录放在共享盘上。",
    ),
    "node_rank_taken": (
        "NODE_RANK: {value} has been taken at {address} by a machine that is there now. Give each machine a number of its "
        "own, 0 to {last}, and run its command once.",
        "NODE_RANK：{value} 已由另一台在线的机器在 {address} 占用。请给每台机器各自的编号（0 到 {last}），命令只运行一次。",
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
        "Write an address of this machine, and let its firewall pass the port; on any other machine run that "
        "machine's own command (NODE_RANK 1 and up).",
        "MASTER_ADDR：{address} 不指向本机（{detail}），而本机是第一台机器（NODE_RANK 0）。"
        "请填写本机的地址，并让防火墙放行该端口；其他机器请运行各自的命令（NODE_RANK 从 1 起）。",
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
    "first_machine_other": (
        "Another program answers at {address}, not the first machine's run. Check MASTER_ADDR and MASTER_PORT; where the "
        "port is taken, choose another one on all machines.",
        "在 {address} 应答的是别的程序，而不是第一台机器的训练。请检查 MASTER_ADDR 和 MASTER_PORT；"
        "如果端口已被占用，请在所有机器上换一个端口。",
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
}
