"""What well-known chat templates do, as functions: messages, and whether the assistant is to speak next, to text."""

from collections.abc import Callable

from finetune_operator.core.chat_format import Messages

BOS, EOS = "<s>", "</s>"


def chatml(messages: Messages, ask: bool) -> str:
    text = "".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in messages)
    return text + ("<|im_start|>assistant\n" if ask else "")


def qwen(messages: Messages, ask: bool) -> str:
    """ChatML that introduces itself where nobody tells it who it is."""
    own = "" if messages[0]["role"] == "system" else "<|im_start|>system\nYou are Qwen.<|im_end|>\n"
    return own + chatml(messages, ask)


def llama_3(messages: Messages, ask: bool) -> str:
    def head(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    turns = "".join(f"{head(each['role'])}{each['content'].strip()}<|eot_id|>" for each in messages)
    return BOS + turns + (head("assistant") if ask else "")


def gemma(messages: Messages, ask: bool) -> str:
    if messages[0]["role"] == "system":
        raise ValueError("System role not supported")
    names = {"user": "user", "assistant": "model"}
    turns = "".join(f"<start_of_turn>{names[each['role']]}\n{each['content']}<end_of_turn>\n" for each in messages)
    return BOS + turns + ("<start_of_turn>model\n" if ask else "")


def mistral(messages: Messages, ask: bool) -> str:
    if any(each["role"] == "system" for each in messages):
        raise ValueError("only user and assistant roles are supported")
    return BOS + "".join(
        f"[INST] {each['content']} [/INST]" if each["role"] == "user" else each["content"] + EOS for each in messages
    )


def llama_2(messages: Messages, ask: bool) -> str:
    """The system's words are a part of the first question."""
    system, rest = "", list(messages)
    if rest[0]["role"] == "system":
        system = f"<<SYS>>\n{rest.pop(0)['content']}\n<</SYS>>\n\n"
    text = ""
    for index, each in enumerate(rest):
        words = (system if index == 0 else "") + each["content"]
        text += f"{BOS}[INST] {words} [/INST]" if each["role"] == "user" else f" {each['content']} {EOS}"
    return text


def forgetful(messages: Messages, ask: bool) -> str:
    """Shows the last question alone."""
    return chatml(messages[-1:], ask)


def counting(messages: Messages, ask: bool) -> str:
    text = "".join(f"[{number}:{each['role']}]{each['content']}" for number, each in enumerate(messages))
    return text + ("[assistant]" if ask else "")


EXPRESSIBLE: dict[str, Callable[[Messages, bool], str]] = {
    "chatml": chatml,
    "qwen": qwen,
    "llama-3": llama_3,
    "gemma": gemma,
    "mistral": mistral,
}
NOT_EXPRESSIBLE: dict[str, Callable[[Messages, bool], str]] = {
    "llama-2": llama_2,
    "forgetful": forgetful,
    "counting": counting,
    "silent": lambda messages, ask: "",
}
