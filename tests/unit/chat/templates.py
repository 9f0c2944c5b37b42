"""Chat templates as models bring them, shortened to what makes each of them different."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Gemma's: no system message, and question and answer take turns
ALTERNATING = """{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{{- '<start_of_turn>' + m.role + '\n' + m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}"""
# one question, and nothing before it
SINGLE = (
    "{% if messages | length > 1 %}{{ raise_exception('one question at a time') }}{% endif %}{{ messages[0].content }}"
)
# Qwen2.5's: whatever the arguments are, they are printed as JSON
PRINTS_JSON = CHATML.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}',
)
# as Qwen3-Coder's: the arguments are listed
LISTS_ARGUMENTS = CHATML.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for call in m.tool_calls or [] %}<function={{ call.function.name }}>"
    "{% for name, value in call.function.arguments | items %}<parameter={{ name }}>{{ value }}</parameter>{% endfor %}"
    "</function>{% endfor %}",
)
# as DeepSeek's: the arguments are put between other texts
JOINS_TEXT = CHATML.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name + '\n```json\n' + call.function.arguments + '\n```' }}{% endfor %}",
)
# as Qwen3's
TAKES_BOTH = CHATML.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function.name }}"
    "{% if call.function.arguments is string %}{{ call.function.arguments }}"
    "{% else %}{{ call.function.arguments | tojson }}{% endif %}{% endfor %}",
)
WITH_TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}" + PRINTS_JSON


def _failing_for(role: str) -> str:
    """Divides by zero at a message of this role, and at no other."""
    return CHATML.replace("m.content", f"m.content if m.role != '{role}' else 1 / (m.content | length * 0)")


# kind of fault: a template that has it, and words that must be said of it
FAULTS = {
    "syntax": ("{% for m in messages %}{{ m.content }", "line 1: "),
    "unknown tag": ("{% frobnicate %}" + CHATML, "frobnicate"),
    "unknown filter": (CHATML.replace("m.content", "m.content | frobnicate"), "frobnicate"),
    "unknown filter of tools": ("{% if tools %}{{ tools | frobnicate }}{% endif %}" + CHATML, "frobnicate"),
    "unknown test": (CHATML.replace("m.content", "'x' if m.content is frobnicate"), "frobnicate"),
    "unknown function": ("{{ frobnicate() }}" + CHATML, "'frobnicate' is undefined"),
    "division": ("{{ 1 / 0 }}" + CHATML, "zero"),
    "division with tools": ("{% if tools %}{{ 1 / (messages | length * 0) }}{% endif %}" + CHATML, "fails with tools"),
    "division with a call": (
        CHATML.replace("m.content", "m.content if not m.tool_calls else 1 / (m.content | length)"),
        "calls of tools",
    ),
    "division with an answer": (_failing_for("assistant"), "zero"),
    "division with a system message": (_failing_for("system"), "system message"),
    "division with thinking": (
        CHATML + "{% if enable_thinking is defined %}{{ 1 / (messages | length * 0) }}{% endif %}</think>",
        "enable_thinking",
    ),
    "types": (CHATML.replace("m.content", "m.content + 1"), "concatenate"),
    "empty": ("", "renders nothing"),
    "white space": (" \n\n", "renders nothing"),
    "only a comment": ("{# nothing #}", "renders nothing"),
    "the messages are ignored": ("<|im_start|>assistant\n", "ignores the messages"),
    "questions are ignored": (CHATML.replace("m.content", "m.content if m.role != 'user'"), "ignores the messages"),
    "everything is declined": ("{{ raise_exception('not today') }}", "not today"),
    "the sandbox is left": ("{{ ''.__class__.__mro__ }}" + CHATML, "unsafe"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + CHATML, "nested too deeply"),
    "half of a pair": (r"{{ '\ud83d' }}" + CHATML, r"renders \ud83d, half of a surrogate pair"),
    "half of a pair with tools": (r"{% if tools %}{{ '\udc00' }}{% endif %}" + CHATML, "fails with tools"),
    "declined with half of a pair": (r"{{ raise_exception('not \ud83d') }}", r"not \ud83d"),
    "a huge source": (CHATML + " " * (1 << 18), "characters"),
    "a huge prompt": ("{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}" + CHATML, "renders more than"),
}

# what only a limit ends
HANGS = {
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + CHATML,
    "a constant": "{{ 9 ** (9 ** (9 ** 9)) }}" + CHATML,
}
EATS_MEMORY = {
    "doubling": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}" + CHATML,
    "center": "{{ messages[0].content.center(3000000000) }}" + CHATML,
    "center beyond any memory": "{{ messages[0].content.center(10 ** 18) }}" + CHATML,
    "a constant": "{{ 'x' * 3000000000 }}" + CHATML,
    "a list": "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}" + CHATML,
}
