"""Check and decode what a session sends. Nothing that it sends is trusted.

A message that is too large, is not JSON, or has the wrong shape raises ``ProtocolError``, which
ends the session.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pandas_amr.errors import UsageError
from pandas_amr.sandbox.guest.worker import (
    ASK_CHARS,
    CELL_BYTES,
    KIND_NAMES,
    MAX_VALUES,
    MISSING_TEXT,
    count_values,
    find_large,
)

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Decoding so many bytes on the event loop is quicker than starting a thread for them.
LOOP_BYTES = 64 << 10
ASK_FIELDS = 32
ASK_NAME_CHARS = 64
ASK_CHOICES = 100  # of a field
ASK_CHOICE_CHARS = 200  # of a choice, or of a description
SUPPORTED_KINDS = (
    f"ask(..., schema=) takes for a column {', '.join(KIND_NAMES)} or a list of at most "
    f"{ASK_CHOICES} choices, alone or in a tuple with a description of at most "
    f"{ASK_CHOICE_CHARS} characters"
)
REPLACEMENT = "\ufffd"
FINDINGS = b'{"findings": ['
# Control characters and lone surrogates. Values may hold tabs and line ends.
VALUE_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
OUTPUT_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class ProtocolError(Exception):
    """The session sent what no session sends."""


async def decode_off_loop(decode: Callable[[bytes], T], content: bytes) -> T:
    """Decode a message: a small one at once, a large one in a thread."""
    if len(content) <= LOOP_BYTES:
        return decode(content)
    return await asyncio.to_thread(decode, content)


def decode_message(content: bytes) -> dict[str, Any]:
    """Decode the JSON object of a message.

    Raises:
        ProtocolError: it is not a JSON object, or holds too many values.
    """
    if count_values(content) > MAX_VALUES:
        raise ProtocolError(f"it sent more than {MAX_VALUES:,} values")
    try:
        if content.startswith(FINDINGS):
            message = _decode_findings(content.decode())
        else:
            message = json.loads(content)
    except (ValueError, RecursionError):
        raise ProtocolError("it sent invalid JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("it sent JSON that is not an object")
    return message


def _decode_findings(text: str) -> dict[str, Any]:
    """Decode findings one after the other: the decoder lets no other thread run until it returns.

    Raises:
        ValueError: the text is not a JSON object of findings alone.
    """
    decode_at = json.JSONDecoder().raw_decode
    findings: list[Any] = []
    place = len(FINDINGS)
    while not text.startswith("]", place):
        finding, place = decode_at(text, place)
        findings.append(finding)
        if text.startswith(", ", place):
            place += 2
        elif not text.startswith("]", place):
            raise ValueError("no comma between findings")
    if text[place:] != "]}":
        raise ValueError("text after the findings")
    return {"findings": findings}


def decode_submitted(content: bytes) -> tuple[dict[str, Any], bool]:
    """Decode what code submitted; return it, and whether control characters in it were replaced."""
    payload = decode_message(content)
    findings = payload.get("findings")
    if isinstance(findings, list):
        for finding in findings:
            if isinstance(finding, dict) and find_large(finding) is not None:
                raise ProtocolError(
                    f"it submitted more than {CELL_BYTES >> 20} MB for one cell of the frame"
                )
    return payload, _replace_controls(payload)


def _replace_controls(payload: dict[str, Any]) -> bool:
    """Replace control characters in decoded JSON, in place; tell whether there were any."""
    replaced = False
    remaining: list[Any] = [payload]
    while remaining:
        part = remaining.pop()
        items = list(part.items()) if isinstance(part, dict) else enumerate(part)
        for key, value in items:
            if isinstance(value, list | dict):
                remaining.append(value)
            elif isinstance(value, str) and VALUE_CONTROLS.search(value):
                part[key] = VALUE_CONTROLS.sub(REPLACEMENT, value)
                replaced = True
        if isinstance(part, dict):
            for key in [key for key in part if VALUE_CONTROLS.search(key)]:
                part[VALUE_CONTROLS.sub(REPLACEMENT, key)] = part.pop(key)
                replaced = True
    return replaced


def clean_output(text: object, max_chars: int) -> str:
    """Return what code printed, without the characters that a terminal or a log would obey.

    Raises:
        ProtocolError: it is not a text.
    """
    if not isinstance(text, str):
        raise ProtocolError("its output is not a text")
    return OUTPUT_CONTROLS.sub(REPLACEMENT, text[:max_chars])


def read_question(question: Any, blobs: list[bytes]) -> dict[str, Any]:
    """Read a question into the form that ``Ask`` takes.

    The texts of a question lie in one blob, one after the other, by their lengths.

    Raises:
        ProtocolError: it has another form.
    """
    if not _is_well_formed(question, blobs):
        raise ProtocolError("it sent a question that has the wrong form")
    texts: list[str | None] = []
    start = 0
    for length in question["lengths"]:
        if length == MISSING_TEXT:
            texts.append(None)
            continue
        texts.append(blobs[0][start : start + length].decode("utf-8", "replace"))
        start += length
    return {
        "texts": texts,
        "instruction": question["instruction"],
        "schema": question.get("schema"),
    }


def _is_well_formed(question: object, blobs: list[bytes]) -> bool:
    if not isinstance(question, dict) or not isinstance(question.get("instruction"), str):
        return False
    lengths = question.get("lengths")
    if not isinstance(lengths, list) or len(blobs) != 1:
        return False
    if not all(type(length) is int and length >= MISSING_TEXT for length in lengths):
        return False
    size: int = sum(length for length in lengths if length != MISSING_TEXT)
    return size == len(blobs[0])


def check_question(question: dict[str, Any]) -> None:
    """Check the size and the types of a question.

    A JSON schema is refused: its patterns and references are programs that the host would run.

    Raises:
        UsageError: it is too large, or asks for a type that is not supported.
    """
    fields = question["schema"]
    if not isinstance(fields, dict) or not 0 < len(fields) <= ASK_FIELDS:
        raise UsageError(
            f"ask(..., schema=) takes a dict of 1 to {ASK_FIELDS} column names to types"
        )
    if len(question["instruction"]) > ASK_CHARS or len(json.dumps(fields)) > ASK_CHARS:
        raise UsageError(
            f"ask() takes an instruction and a schema of {ASK_CHARS:,} characters each"
        )
    for name, kind in fields.items():
        if len(name) > ASK_NAME_CHARS:
            raise UsageError(f"ask(..., schema=) takes column names of {ASK_NAME_CHARS} characters")
        _check_kind(kind)


def _check_kind(kind: object) -> None:
    """Check the type of a field: plain, a list, or choices; or one of these with a description."""
    plain = kind
    if isinstance(kind, dict):
        description = kind.get("description")
        if kind.keys() != {"kind", "description"} or not isinstance(description, str):
            raise UsageError(SUPPORTED_KINDS)
        if len(description) > ASK_CHOICE_CHARS:
            raise UsageError(SUPPORTED_KINDS)
        plain = kind["kind"]
    if isinstance(plain, list):
        _check_choices(plain)
    elif not isinstance(plain, str) or plain not in KIND_NAMES:
        raise UsageError(SUPPORTED_KINDS)


def _check_choices(choices: list[Any]) -> None:
    are_scalars = all(isinstance(choice, str | int | float) for choice in choices)
    if not are_scalars or not 0 < len(choices) <= ASK_CHOICES:
        raise UsageError(SUPPORTED_KINDS)
    if max(len(str(choice)) for choice in choices) > ASK_CHOICE_CHARS:
        raise UsageError(f"ask(..., schema=) takes choices of {ASK_CHOICE_CHARS} characters")
