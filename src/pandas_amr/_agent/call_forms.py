"""The forms in which models write tool calls as text."""

from __future__ import annotations

import re

NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "action", "recipient_name")
ARGUMENT_KEYS = (
    "arguments",
    "parameters",
    "args",
    "tool_input",
    "action_input",
    "input",
    "kwargs",
    "params",
)
INNER_KEYS = ("function", "function_call", "tool_call")  # their value is the call
LIST_KEYS = ("tool_calls", "calls", "tool_uses")

TAG = (
    r"(?:tool_?calls?|function_?calls?|functools|tools?|start_action|end_action|"
    r"action_(?:start|end)|plugin)"
)
OPENER = re.compile(
    rf"<(?:[\w-]+:)?{TAG}>|<\|{TAG}(?:_start|_begin|_section_begin)?\|>|"
    r"<\|python_(?:tag|start)\|>|<\uff5ctool\u2581calls?\u2581begin\uff5c>|\[TOOL_CALLS?\]|"
    r"functools(?=\[)|(?=<function=)|(?=<invoke name=)|"
    r"(?:<\|start\|>assistant |<\|channel\|>\w+ )(?=to=)|"
    r"^Action:[ \t]*(?=[\w.-]+\s*^Action Input:)",
    re.IGNORECASE | re.MULTILINE,
)
CLOSER = re.compile(
    rf"</(?:[\w-]+:)?{TAG}>|"
    rf"<\|/?(?:{TAG}(?:_end|_begin|_section_end|_argument_begin)?|call|python_end)\|>|"
    r"<\uff5ctool\u2581calls?\u2581end\uff5c>|\[/TOOL_CALLS?\]|[\s,;]+|```[\w-]*",
    re.IGNORECASE,
)
BODY_END = re.compile(rf"</(?:[\w-]+:)?{TAG}>|<\|/?\w+\|>|\[/TOOL_CALLS?\]|\Z", re.IGNORECASE)
# A name before its arguments, as Mistral, Kimi, DeepSeek, gpt-oss and ReAct write it.
NAMED = re.compile(
    r"(?:function<\uff5ctool\u2581sep\uff5c>|to=)?(?P<name>[\w.-]++)(?::\d+)?"
    r"(?:\[CALL_ID\]\w++)?"
    r"(?:\[ARGS\]|<\|tool_call_argument_begin\|>|<\uff5ctool\u2581sep\uff5c>|```json|"
    r"<\|constrain\|>\w++|<\|message\|>|<\|channel\|>\w++|Action Input:|"
    r"(?<=\s)(?:json|code)(?=<\|message)|\s)*+(?=\{)"
)
# The mark with which chat templates begin a turn.
TURN_BEGIN = re.compile(
    r"\A<\|(?:im_start|start_header_id)\|>\s*assistant\s*(?:<\|end_header_id\|>)?\s*"
)
# The namespace of an element, and the types that DeepSeek writes into elements.
NAMESPACE = re.compile(
    r"(?<=<)(/?)(?:\uff5cDSML\uff5c|\w+:)(?=(?:function_calls|invoke|parameter)\b)|"
    r"\s+string=\\*\"\w+\\*\""
)
FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n(?P<body>.*?)\s*(?:```|\Z)", re.DOTALL)
XML_CALL = re.compile(
    r"<function=(?P<function>[^>\s]+)>(?P<of_function>.*?)(?:</function>|\Z)|"
    r"<invoke name=\"(?P<invoke>[^\"]+)\">(?P<of_invoke>.*?)(?:</invoke>|\Z)",
    re.DOTALL,
)
XML_PARAMETER = re.compile(
    r"<parameter=(?P<key>[^>\s]+)>(?P<value>.*?)(?:</parameter>|(?=<parameter=)|\Z)|"
    r"<parameter name=\"(?P<name>[^\"]+)\"[^>]*>(?P<of_name>.*?)(?:</parameter>|\Z)",
    re.DOTALL,
)
XML_ENDS = ("</function>", "</invoke>")
GLM_PAIR = re.compile(r"<arg_key>([^<]*)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*", re.DOTALL)
GLM_CALL = re.compile(rf"(?P<name>[\w.-]++)\s*(?P<pairs>(?:{GLM_PAIR.pattern})+)", re.DOTALL)
