"""What there is to say of chat templates, in both languages: part of SENTENCES."""

TEMPLATE_SENTENCES: dict[str, tuple[str, str]] = {
    "template_missing": (
        "{label}: the model {path} brings no chat template, and its family is not known. Choose one: that of the model "
        "it was made from, else chatml or default.",
        "{label}：模型 {path} 没有自带对话模板，也无法判断属于哪个系列。请选择一个：它的原模型所用的模板，或 chatml、default。",
    ),
    "template_failed": (
        "{label}: template {template} cannot render sample {row}: {detail}",
        "{label}：模板 {template} 无法渲染第 {row} 条样本：{detail}",
    ),
    "template_guessed": (
        "{label}: the model {path} brings no chat template, as base models do; {template} is used, that of its family. "
        "It has yet to learn this format: train it before you judge its answers, or choose another template.",
        "{label}：模型 {path} 没有自带对话模板（基座模型常常如此），将使用它所属系列的模板 {template}。"
        "模型尚未学过这种格式：请先训练再看回答，或选择其他模板。",
    ),
    "template_tokens_missing": (
        "{label}: template {template} writes {tokens}, which the tokenizer of {path} does not know as tokens and will "
        "read letter by letter. Choose the template of the model's own family, or default.",
        "{label}：模板 {template} 会写出 {tokens}，而 {path} 的分词器没有这些词元，只能逐字拆开读。"
        "请选择模型所属系列的模板，或 default。",
    ),
}
