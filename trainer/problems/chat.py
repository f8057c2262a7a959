"""What can be said of a chat, a comparison and tools, in both languages: part of SENTENCES. Light."""

CHAT_SENTENCES: dict[str, tuple[str, str]] = {
    "chat_busy": (
        "Another reply is being written. Wait for it or press Stop.",
        "正在生成另一条回复。请等它完成，或点击停止。",
    ),
    "chat_busy_elsewhere": (
        "The question of another tab is being answered. Wait for it, or unload the model, which ends that answer.",
        "正在回答另一个标签页的问题。请等它完成，或点击卸载模型（那边的回答会随之结束）。",
    ),
    "chat_not_stopping": (
        "The chat process has not left its last answer after {seconds} s: it still reads a long input, or hangs. Ask "
        "again later, or load the model again.",
        "对话进程 {seconds} 秒后仍未结束上一条回答：它还在读取很长的输入，或已无响应。请稍后再问，或重新加载模型。",
    ),
    "chat_not_loaded": (
        "No model is loaded. Load a model first.",
        "模型未加载，请先加载模型。",
    ),
    "chat_too_long": (
        "The conversation has {tokens} tokens and the model takes {limit}. Clear the history, or shorten the question, the "
        "system prompt or the list of tools.",
        "对话已有 {tokens} 个词元，模型最多接受 {limit} 个。请清空历史，或缩短问题、系统提示词或工具列表。",
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
    "chat_output": (
        "The answer cannot be written ({detail}). Make room, or send the output elsewhere.",
        "无法写出回答（{detail}）。请腾出空间，或将输出写到别处。",
    ),
    "compare_nothing": (
        "Compare: no column has a checkpoint. Choose at least one.",
        "对比：没有选择任何检查点。请至少选择一个。",
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
}
