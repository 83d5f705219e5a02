"""What agents did: conversations of steps, by the node in which they were held.

A run keeps several of these records for each call, and none of them is part of a circle: so the
collector does not track them (``gc=False``), else it would go through all of them again and again.
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from pandas_amr._records.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TraceLevel = Literal["nodes", "full", "off"]
StepKind = Literal["system", "user", "thought", "model", "call", "result", "error"]
PurposeKind = Literal["map", "merge", "reduce", "plan"]
ABOUT_NO_UNIT = -1  # the position of a problem of an answer that is about no unit


class Step(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """One step of a conversation.

    Attributes:
        kind: ``system`` and ``user`` are what the agent read, ``model`` what it said and
            ``thought`` before that, ``call`` a tool that it called, ``result`` what that gave,
            ``error`` a failure of the service.
        characters: how long its text is.
        text: its text, if contents are kept.
        tool: the name of the tool.
        code: the code that was to be run; without what may be of a cell if contents are not kept.
        error: the type of an exception, and its line in the code.
        finish: why the model stopped.
        usage: what the turn took.
    """

    kind: StepKind
    characters: int = 0
    text: str | None = None
    tool: str = ""
    code: str | None = None
    error: str = ""
    finish: str = ""
    usage: Usage | None = None


@lru_cache(maxsize=10_000)
def make_step(kind: StepKind, characters: int) -> Step:
    """Make a step of which no contents are kept; the same one again, where runs have millions."""
    return Step(kind, characters)


class Purpose(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a conversation is for.

    Attributes:
        units: the positions of the units that it is about, if any, in the order of their numbers.
        piece: the number of the piece of a long unit, from 1; 0 if units are read whole.
        pieces: how many pieces that has.
        asked: the numbers of the units, from 0, that are asked about; all but in a repair.
        is_repair: whether it goes on with the conversation before, of which the last message alone
            is new.
    """

    kind: PurposeKind
    units: tuple[int, ...] = ()
    piece: int = 0
    pieces: int = 0
    asked: tuple[int, ...] = ()
    is_repair: bool = False

    @property
    def asked_units(self) -> tuple[int, ...]:
        """The positions of the units that are asked about."""
        if self.piece or not self.asked:
            return self.units
        return tuple(self.units[number] for number in self.asked)


class Conversation(msgspec.Struct, gc=False, array_like=True, tag=1):
    """What one agent read, said and did.

    Attributes:
        steps: in order; a conversation among them is one that code of this agent has begun.
        accepted: how many findings of it were accepted; None if none was to come of it, or it did
            not come to its end.
        problems: what is wrong with the others, each with its unit's position; of an answer that
            is about no unit with ``ABOUT_NO_UNIT``.
    """

    purpose: Purpose
    steps: tuple[Step | Conversation, ...] = ()
    accepted: int | None = None
    problems: tuple[tuple[int, str], ...] = ()

    @property
    def usage(self) -> Usage:
        """What its turns took, and those that its code has begun."""
        total = NO_USAGE
        for step in self.walk():
            if step.usage is not None:
                total += step.usage
        return total

    def walk(self) -> Iterator[Step]:
        """Give all steps, those of the conversations within it, too."""
        for step in self.steps:
            if isinstance(step, Conversation):
                yield from step.walk()
            else:
                yield step


class NodeTranscript(msgspec.Struct, gc=False, array_like=True):
    """The conversations of one node.

    Attributes:
        recalled: the keys of the answers that the journal had, as hexadecimal digits.
        dropped: how many conversations are left out, since the transcript of the run is full.
        cut: how many characters of contents are left out for that reason.
        is_on_file: whether contents are in the transcripts' file, and not here.
    """

    conversations: tuple[Conversation, ...] = ()
    recalled: tuple[str, ...] = ()
    dropped: int = 0
    cut: int = 0
    is_on_file: bool = False

    def about(self, position: int) -> tuple[Conversation, ...]:
        """Return the conversations about the unit at a position."""
        return tuple(one for one in self.conversations if position in one.purpose.asked_units)


# -- in memory -------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(NodeTranscript)


def pack_node(node: NodeTranscript) -> bytes:
    """Return a node's transcript as bytes, which take less memory, and the collector no time.

    Raises:
        UnicodeEncodeError: a text of it has half of a surrogate pair.
    """
    return _encoder.encode(node)


def unpack_node(packed: bytes) -> NodeTranscript:
    """Read what ``pack_node`` gave."""
    return _decoder.decode(packed)


# -- as JSON ---------------------------------------------------------------------------------------

Plain: TypeAlias = "dict[str, Any]"
USAGE_FIELDS = tuple(each.name for each in fields(Usage))


def encode_node(node: NodeTranscript) -> Plain:
    """Return a node's transcript as JSON."""
    return {
        "conversations": [_encode_conversation(one) for one in node.conversations],
        "recalled": node.recalled,
        "dropped": node.dropped,
        "cut": node.cut,
    }


def _encode_conversation(conversation: Conversation) -> Plain:
    purpose = conversation.purpose
    steps: list[Plain] = []
    for step in conversation.steps:
        if isinstance(step, Conversation):
            steps.append({"within": _encode_conversation(step)})
        else:
            steps.append(_encode_step(step))
    return {
        "kind": purpose.kind,
        "units": list(purpose.units),
        "piece": [purpose.piece, purpose.pieces],
        "asked": list(purpose.asked),
        "repair": purpose.is_repair,
        "steps": steps,
        "accepted": conversation.accepted,
        "problems": conversation.problems,
    }


def _encode_step(step: Step) -> Plain:
    plain: Plain = {"kind": step.kind, "characters": step.characters}
    for name in ("text", "tool", "code", "error", "finish"):
        value = getattr(step, name)
        if value:
            plain[name] = value
    if step.usage is not None:
        plain["usage"] = [getattr(step.usage, name) for name in USAGE_FIELDS]
    return plain


def decode_node(plain: Mapping[str, Any]) -> NodeTranscript:
    """Read what ``encode_node`` gave.

    Raises:
        ValueError: it is something else; so do the other errors of wrong types and missing keys.
    """
    conversations = tuple(_decode_conversation(one) for one in plain["conversations"])
    recalled = tuple(str(key) for key in plain["recalled"])
    return NodeTranscript(conversations, recalled, int(plain["dropped"]), int(plain["cut"]))


def _decode_conversation(plain: Mapping[str, Any]) -> Conversation:
    piece, pieces = plain["piece"]
    purpose = Purpose(
        plain["kind"],
        tuple(plain["units"]),
        piece,
        pieces,
        tuple(plain["asked"]),
        is_repair=plain["repair"],
    )
    steps: list[Step | Conversation] = []
    for step in plain["steps"]:
        within = step.get("within")
        steps.append(_decode_step(step) if within is None else _decode_conversation(within))
    problems = tuple((position, what) for position, what in plain["problems"])
    return Conversation(purpose, tuple(steps), plain["accepted"], problems)


def _decode_step(plain: Mapping[str, Any]) -> Step:
    fields_of_step = dict(plain)
    if "usage" in plain:
        fields_of_step["usage"] = Usage(**dict(zip(USAGE_FIELDS, plain["usage"], strict=True)))
    return Step(**fields_of_step)
