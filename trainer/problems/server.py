"""What can be said of addresses, tokens and servers: the page, `tunedesk serve`, and those of others,
in both languages: part of SENTENCES. Light."""

SERVER_SENTENCES: dict[str, tuple[str, str]] = {
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
    "serve_key_needed": (
        "--no-api-key lets everyone in who reaches {host}. Use it with --host 127.0.0.1 only.",
        "--no-api-key 会让能访问 {host} 的任何人进入。请只与 --host 127.0.0.1 一起使用。",
    ),
    "serve_port": (
        "--port {port}: it cannot be used on {host} ({detail}). Choose another, or --port 0 for any that is free.",
        "--port {port}：无法在 {host} 上使用（{detail}）。请换一个，或用 --port 0 选任一空闲端口。",
    ),
    "serve_adapter_form": (
        "--adapter: got {value}. Write NAME=DIR, for example --adapter mine=runs/mine.",
        "--adapter：给出的是 {value}。请写成 名称=文件夹，例如 --adapter mine=runs/mine。",
    ),
    "adapter_is_model": (
        "--adapter: {path} is a model of its own, as full and freeze training write it, not a LoRA checkpoint. Give it as "
        "--model.",
        "--adapter：{path} 本身就是完整的模型（full 和 freeze 训练的结果），不是 LoRA 检查点。请用 --model 给出它。",
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
        "Without an API key this server answers to 127.0.0.1 and localhost only, not to {host}. Ask it by "
        "one of those names.",
        "没有 API 密钥时，此服务只应答 127.0.0.1 和 localhost，不应答 {host}。请用这两个名称访问。",
    ),
    "serve_nothing_there": (
        "There is nothing at {method} {path}. Use GET /v1/models or POST /v1/chat/completions.",
        "{method} {path} 不存在。请使用 GET /v1/models 或 POST /v1/chat/completions。",
    ),
    "serve_model_unknown": (
        "model: got {value}, which is not served here. Choose one of: {choices}.",
        "model：给出的是 {value}，此服务没有它。请从中选择：{choices}。",
    ),
    "serve_model_lost": (
        "model: {value} was served here and cannot be used now: {reason} Once its folder is as it was, the model answers again.",
        "model：{value} 本由此服务提供，现在无法使用：{reason}文件夹恢复原样后，模型即可再用。",
    ),
    "serve_nothing_asked": (
        "messages: there is nothing to answer: the last one is empty, or the chat template leaves them all out. End with "
        "a user's message that says something.",
        "messages：没有需要回答的内容：最后一条是空的，或对话模板不写出其中任何一条。请以有内容的 user 消息结尾。",
    ),
    "serve_too_long": (
        "messages: the conversation has {tokens} tokens and the model takes {limit}. Shorten it, or leave out its beginning.",
        "messages：对话有 {tokens} 个词元，模型最多接受 {limit} 个。请缩短内容，或去掉开头的消息。",
    ),
    "serve_template": (
        "messages: the chat template {template} cannot write this conversation ({detail}). Change the messages or their roles.",
        "messages：对话模板 {template} 无法写出这段对话（{detail}）。请修改消息或它们的角色。",
    ),
    "serve_wrong_method": (
        "{path} takes {allowed}, and got {method}. Use {allowed}.",
        "{path} 只接受 {allowed}，收到的是 {method}。请改用 {allowed}。",
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
    "server_model_missing": (
        "Model of the server: nothing chosen. Press Connect and choose one of its models.",
        "服务的模型：没有选择。请点击“连接”，再从列表中选择。",
    ),
}
