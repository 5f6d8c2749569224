"""Cuts a GGUF vocabulary down to what the texts of its test cases can reach.

A merge can take part in encoding a text only if the token it makes occurs in the text (written in the byte alphabet),
so leaving all others out does not change the ids of that text. Writes JSON: {pre, size, tokens: {id: text}, types:
{id: type}, merges: [..], bos, eos, add_bos}.

    python reference/text_cut_vocab.py ggml-vocab-qwen2.gguf ggml-vocab-qwen2.gguf.inp out.json
"""

import json
import sys

from gguf import GGUFReader

vocabulary, cases, out = sys.argv[1:]


def alphabet(byte):
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


text = "".join(alphabet(byte) for byte in open(cases, "rb").read())
fields = GGUFReader(vocabulary).fields


def value(key):
    return fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else None


tokens, types = value("tokens"), value("token_type")
keep = {id: token for id, token in enumerate(tokens) if token in text or len(token) == 1 or types[id] != 1}
reachable = set(keep.values())
merges = [merge for merge in value("merges") if merge.replace(" ", "", 1) in text]
assert all(part in reachable for merge in merges for part in merge.split(" ", 1)), "a part of a merge was cut"
# Of control tokens the first and last few are enough; there are hundreds of reserved ones.
special = [id for id in keep if types[id] != 1]
for id in special[8:-8]:
    del keep[id]
result = {
    "pre": value("pre"),
    "size": len(tokens),
    "tokens": keep,
    "types": {id: types[id] for id in keep if types[id] != 1},
    "merges": merges,
    "bos": value("bos_token_id"),
    "eos": value("eos_token_id"),
    "add_bos": value("add_bos_token"),
}
json.dump(result, open(out, "w"), ensure_ascii=False, indent=0)
