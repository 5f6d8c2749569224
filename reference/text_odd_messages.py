"""Renders the published chat templates on messages with odd content, by Hugging Face transformers.

    python reference/text_odd_messages.py crates/text/tests/fixtures/chat_templates

Writes NAME.odd.json beside each NAME.jinja, in the form of NAME.json; a case that the template refuses has "error".
"""

import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

ODD = [
    "<think>\nplan\n</think>\n\nanswer </think> twice", "  spaces \n\n", "\"quotes\" 'both' \\ back\tslash\u0007", "<b>&amp;</b>",
    "<tool_response>x</tool_response>", "🙂 e\u0301 مرحبا 你好", "{{ not }} {% code %}", "<BOS><EOS>", "",
]
ARGUMENTS = {"s": "<é\"\\\n\u0001🙂>", "f": [1.0, 0.1, 1e20, 1e-7, -2.5], "n": None, "b": [True, False], "o": {}, "l": [], "i": 12345678901234567}
TOOL = {"type": "function", "function": {"name": "f", "description": "<d> & 'q'", "parameters": {"type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "string"}}}, "required": ["items"]}, "return": "x"}}

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
    template = _compile_jinja_template(path.read_text())
    cases = []

    def add(case, messages, tools=None, **variables):
        row = {"case": case, "messages": messages, "tools": tools, "add_generation_prompt": True, "variables": variables}
        try:
            row["rendered"] = template.render(messages=messages, tools=tools, documents=None, add_generation_prompt=True,
                                              bos_token="<BOS>", eos_token="<EOS>", **variables)
        except Exception as error:
            row["error"] = str(error)
        cases.append(row)

    for index, text in enumerate(ODD):
        user, assistant = {"role": "user", "content": text}, {"role": "assistant", "content": text}
        add(f"odd {index}", [{"role": "system", "content": text}, user, assistant, user], enable_thinking=bool(index % 2))
        call = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS | {"t": text}}}
        result = {"role": "tool", "tool_call_id": "call00001", "name": "f", "content": text}
        add(f"call {index}", [user, assistant | {"tool_calls": [call]}, result, assistant, user], [TOOL])
        add(f"reasoning {index}", [user, assistant | {"reasoning_content": text}], thinking=True)
    add("list result", [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "call00001", "content": [1, "a"]}])
    add("other role", [{"role": "developer", "content": "x"}])
    add("empty", [])
    result = {"cases": cases}
    path.with_suffix("").with_name(path.name.removesuffix(".jinja") + ".odd.json").write_text(json.dumps(result, ensure_ascii=False, indent=1))
