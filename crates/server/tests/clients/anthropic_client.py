"""The official anthropic package, unchanged, against a server on the stub model. Argument: the base address."""

import json
import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1] + "/anthropic", api_key="none", max_retries=0)


def ask(text, **fields):
    messages = [{"role": "user", "content": text}]
    return client.messages.create(model="claude-sonnet-4-5", max_tokens=200, messages=messages, **fields)


THINK = "SAY:<think>\nhm\n</think>\n\nYes."
answer = ask(THINK, system="Be brief.")
assert [block.type for block in answer.content] == ["thinking", "text"] and answer.content[1].text == "Yes."
assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 0
assert answer.content[0].signature, "without one, clients do not send thinking back"

with client.messages.stream(model="stub", max_tokens=200, messages=[{"role": "user", "content": THINK}]) as stream:
    assert "".join(stream.text_stream) == "Yes."
    thinking = stream.get_final_message().content[0]
    assert thinking.thinking == "hm" and thinking.signature
again = [{"role": "user", "content": "x"}, {"role": "assistant", "content": answer.content},
         {"role": "user", "content": "SAY:Good."}]
assert client.messages.create(model="stub", max_tokens=200, messages=again).content[0].text == "Good."

schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"],
          "additionalProperties": False}
answer = ask("noise", extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}})
assert 0 <= json.loads(answer.content[0].text)["n"] <= 9

tools = [{"name": "f", "description": "F", "input_schema": {"type": "object"}}]
say = 'SAY:<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
answer = ask(say, tools=tools)
block = answer.content[0]
assert (answer.stop_reason, block.name, block.input) == ("tool_use", "f", {"a": 1})
with client.messages.stream(model="stub", max_tokens=200, tools=tools, messages=[{"role": "user", "content": say}]) as stream:
    assert stream.get_final_message().content[0].input == {"a": 1}
messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "42"},
                                         {"type": "text", "text": "SAY:Good."}]}]
answer = client.messages.create(model="stub", max_tokens=200, messages=messages, tools=tools)
assert answer.content[0].text == "Good."

counted = client.messages.count_tokens(model="stub", messages=[{"role": "user", "content": "x"}])
assert counted.input_tokens > 0
try:
    client.messages.create(model="gpt-9", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    raise SystemExit("gpt-9 was taken")
except anthropic.BadRequestError as error:
    assert "Model Not Exist" in str(error)
print("anthropic", anthropic.__version__)
