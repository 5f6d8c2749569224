"""The official openai package, unchanged, against a server on the stub model. Argument: the base address."""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)


def ask(text, **fields):
    return client.chat.completions.create(model="stub", messages=[{"role": "user", "content": text}], **fields)


assert [m.id for m in client.models.list()] == ["stub"]

answer = ask("SAY:<think>\nhm\n</think>\n\nYes.")
assert answer.choices[0].message.content == "Yes."
assert answer.choices[0].message.reasoning_content == "hm"
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

text, reasoning, usage = "", "", None
for chunk in ask("SAY:<think>\nhm\n</think>\n\nYes.", stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        text += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
assert (text, reasoning) == ("Yes.", "hm") and usage.completion_tokens > 0

schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"],
          "additionalProperties": False}
answer = ask("noise", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
assert 0 <= json.loads(answer.choices[0].message.content)["n"] <= 9

tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
answer = ask('SAY:<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', tools=tools)
call = answer.choices[0].message.tool_calls[0]
assert (call.function.name, json.loads(call.function.arguments)) == ("f", {"a": 1})
messages = [{"role": "user", "content": "go"}, answer.choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": "42"}, {"role": "user", "content": "SAY:Good."}]
assert client.chat.completions.create(model="stub", messages=messages, tools=tools).choices[0].message.content == "Good."

answer = client.completions.create(model="stub", prompt="Once", max_tokens=4, logprobs=2)
assert len(answer.choices[0].logprobs.tokens) == 4
answer = client.completions.create(model="stub", prompt="Once upon", max_tokens=0, logprobs=1, echo=True)
scores = answer.choices[0].logprobs
assert answer.choices[0].text == "".join(scores.tokens) == "Once upon" and answer.usage.completion_tokens == 0
assert scores.token_logprobs[0] is None and all(score <= 0 for score in scores.token_logprobs[1:])

texts = ["one text", "another"]
vectors = client.embeddings.create(model="stub", input=texts)  # base64 on the wire
numbers = client.embeddings.create(model="stub", input=texts, encoding_format="float")
assert len(vectors.data) == len(numbers.data) == 2
assert all(abs(x - y) < 1e-6 for v, w in zip(vectors.data, numbers.data) for x, y in zip(v.embedding, w.embedding))
assert abs(sum(x * x for x in vectors.data[0].embedding) - 1) < 1e-5 and vectors.usage.prompt_tokens > 0

answer = client.responses.create(model="stub", input="SAY:Hello")
assert answer.output_text == "Hello"
with client.responses.stream(model="stub", input="SAY:Hello") as stream:
    assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == "Hello"

for fields, kind in [({"temperature": 9}, openai.UnprocessableEntityError), ({"n": 99}, openai.UnprocessableEntityError)]:
    try:
        ask("x", **fields)
        raise SystemExit(f"{fields} was taken")
    except kind as error:
        assert error.param in fields
try:
    client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    raise SystemExit("gpt-9 was taken")
except openai.BadRequestError as error:
    assert error.code == "model_not_found"
print("openai", openai.__version__)
