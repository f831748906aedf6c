#!/usr/bin/env python3
"""Conversations as transformers' apply_chat_template renders and tokenises them: tests/golden/chats.json.

    python tests/golden/make_chats.py            from the project's root

The Jinja texts below were written for this project, after the formats that the models' makers document; they say the same
as the models' own for contents without white space at their ends (some models' trim it). "tokenizers" has a byte-level BPE and
two Llama-2-like ones (spaces as U+2581, byte fallback), trained on story.txt; "templates" a list of {"name", "jinja",
"tokenizer", "chats": [{"messages", "text", "ids"}, ...]}: ids of the chat with the words that open the assistant's
turn. Needs: transformers 5, tokenizers 0.23.
"""
import json

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eot_id|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<start_of_turn>", "<end_of_turn>"]

CHATML = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA3 = ("{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content']"
          " + '<|eot_id|>' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
JOINED = "{% set ns = namespace(s='') %}{% for m in messages %}{% if m['role'] == 'system' %}{% set ns.s = SYSTEM %}"
LLAMA2 = (JOINED.replace("SYSTEM", "'<<SYS>>\n' + m['content'] + '\n<</SYS>>\n\n'") +
          "{% elif m['role'] == 'user' %}{{ bos_token + '[INST] ' + ns.s + m['content'] + ' [/INST]' }}{% set ns.s = '' %}"
          "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}")
MISTRAL = ("{{ bos_token }}" + JOINED.replace("SYSTEM", "m['content'] + '\n\n'") +
           "{% elif m['role'] == 'user' %}{{ '[INST] ' + ns.s + m['content'] + ' [/INST]' }}{% set ns.s = '' %}"
           "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}")
GEMMA = ("{{ bos_token }}" + JOINED.replace("SYSTEM", "m['content'] + '\n\n'") +
         "{% else %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' + ns.s + m['content'] + "
         "'<end_of_turn>\n' }}{% set ns.s = '' %}{% endif %}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")
PHI3 = ("{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}")
ZEPHYR = ("{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}")
VICUNA = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + ' ' }}"
          "{% elif m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}"
          "{% else %}{{ 'ASSISTANT: ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")
ALPACA = ("{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n\n' }}"
          "{% elif m['role'] == 'user' %}{{ '### Instruction:\n' + m['content'] + '\n\n' }}"
          "{% else %}{{ '### Response:\n' + m['content'] + '\n\n' }}{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}")
TEMPLATES = [("chatml", CHATML, "bytes"), ("llama3", LLAMA3, "bytes"), ("phi3", PHI3, "marks"), ("phi3", PHI3, "bytes"),
             ("zephyr", ZEPHYR, "marks"), ("gemma", GEMMA, "marks"), ("gemma", GEMMA, "bytes"),
             ("llama2", LLAMA2, "marks"), ("llama2", LLAMA2, "legacy"), ("llama2", LLAMA2, "bytes"),
             ("mistral", MISTRAL, "marks"), ("mistral", MISTRAL, "legacy"), ("vicuna", VICUNA, "marks"),
             ("vicuna", VICUNA, "bytes"), ("alpaca", ALPACA, "bytes"), ("alpaca", ALPACA, "marks")]


def said(*words):
    roles = ["user", "assistant"]
    return [{"role": roles[i % 2], "content": w} for i, w in enumerate(words)]


SYSTEM = [{"role": "system", "content": "You are a keeper of the harbour."}]
CHATS = [said("Hello"), SYSTEM + said("Hello"), said("Hello there.", "Good morning!", "What time is it?"),
         SYSTEM + said("One", "Two\n\nlines", "Three: 123", "Four", "d\u00e9j\u00e0 vu \u4f60\u597d"),
         said("a\n\n b"), said(""), SYSTEM + said("'s [x] ### <y>", "", "?")]


def trained(kind):
    story = open("tests/golden/story.txt", encoding="utf-8").read().split("\n")
    special = [AddedToken(t, special=True, normalized=False) for t in SPECIAL]
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=special, show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        special += ["<0x%02X>" % b for b in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(story + ["[INST] [/INST] <<SYS>> <</SYS>> USER: ASSISTANT:\n"] * 9, trainer)
    out = json.loads(tokenizer.to_str())
    out["added_tokens"] = [t for t in out["added_tokens"] if t["content"] in SPECIAL]
    if kind == "marks":
        out["pre_tokenizer"]["split"] = False
    if kind == "legacy":
        out["pre_tokenizer"] = None
        out["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    return out


def main():
    tokenizers = {kind: trained(kind) for kind in ["bytes", "marks", "legacy"]}
    templates = []
    for name, jinja, kind in TEMPLATES:
        package = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(tokenizers[kind])),
                                          bos_token="<s>", eos_token="</s>", chat_template=jinja)
        chats = []
        for messages in CHATS:
            text = package.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = package.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            chats.append({"messages": messages, "text": text, "ids": ids})
        templates.append({"name": name, "jinja": jinja, "tokenizer": kind, "chats": chats})
    with open("tests/golden/chats.json", "w") as f:
        f.write('{"tokenizers":{\n%s\n},"templates":[\n%s\n]}\n' % (
            ",\n".join('"%s":%s' % (k, json.dumps(v, separators=(",", ":"))) for k, v in tokenizers.items()),
            ",\n".join(json.dumps(t, separators=(",", ":")) for t in templates)))


if __name__ == "__main__":
    main()
