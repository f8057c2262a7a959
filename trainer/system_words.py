"""What the system and the JSON library say, in Chinese: they know English alone. Light: no torch."""

import errno
import os

_ERRORS = {
    errno.EACCES: "没有权限",
    errno.EPERM: "不允许该操作",
    errno.ENOENT: "不存在",
    errno.EEXIST: "已存在",
    errno.ENOTDIR: "不是文件夹",
    errno.EISDIR: "是文件夹",
    errno.ENOTEMPTY: "文件夹不为空",
    errno.ENOSPC: "磁盘已满",
    errno.EDQUOT: "超出磁盘配额",
    errno.EROFS: "磁盘只读",
    errno.EIO: "读写出错",
    errno.ESTALE: "网络文件已失效",
    errno.ENAMETOOLONG: "名称过长",
    errno.ELOOP: "符号链接过多",
    errno.EXDEV: "不在同一磁盘",
    errno.EBUSY: "正被占用",
    errno.EMFILE: "打开的文件过多",
    errno.ENFILE: "系统打开的文件过多",
    errno.ENOMEM: "内存不足",
    errno.EAGAIN: "资源暂不可用",
    errno.EADDRINUSE: "地址已被占用",
    errno.EADDRNOTAVAIL: "本机没有该地址",
    errno.ECONNREFUSED: "连接被拒绝",
    errno.ECONNRESET: "连接被对方重置",
    errno.ECONNABORTED: "连接中断",
    errno.EPIPE: "连接已断开",
    errno.ETIMEDOUT: "连接超时",
    errno.EHOSTUNREACH: "到不了该主机",
    errno.ENETUNREACH: "到不了该网络",
}
_JSON = {
    "Expecting value": "此处应为一个值",
    "Expecting ',' delimiter": "此处应为逗号",
    "Expecting ':' delimiter": "此处应为冒号",
    "Expecting property name enclosed in double quotes": "此处应为双引号中的名称",
    "Illegal trailing comma before end of object": "结尾多了逗号",
    "Illegal trailing comma before end of array": "结尾多了逗号",
    "Extra data": "结尾之后还有内容",
    "Unterminated string starting at": "此处开始的文字缺少结尾的引号",
    "Invalid control character at": "文字中有换行等控制字符",
    "Invalid \\escape": "反斜杠后的字符无效",
    "Invalid \\uXXXX escape": "\\u 之后应为四位十六进制数",
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "开头有多余的 BOM",
}
_NAMES = {
    "not a file": "不是普通文件",
    "Name or service not known": "找不到该主机名",
    "Temporary failure in name resolution": "暂时无法解析主机名",
    "No address associated with hostname": "该主机名没有地址",
    "nodename nor servname provided, or not known": "找不到该主机名",
    "timed out": "超时",
}
CHINESE = {os.strerror(number): words for number, words in _ERRORS.items()} | _JSON | _NAMES


def in_chinese(detail: str) -> str:
    """`detail` in Chinese where it is one of the words above, with or without a colon behind; else as it is."""
    return CHINESE.get(detail.strip().removesuffix(":").rstrip(), detail)
