"""Take down what agents do in a run: as much as ``trace=`` says, and no more than fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from pandas_amr._records.code_masks import mask_code
from pandas_amr._records.transcript import Conversation, NodeTranscript, pack_node, unpack_node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pandas_amr._records.transcript import Step, TraceLevel

TEXT_CHARACTERS = 20_000  # of one text of a conversation; of the rest beginning and end are kept
RUN_CHARACTERS = 64_000_000  # of all texts that a run has in memory
RUN_STEPS = 1_000_000
AnswerKind: TypeAlias = Literal["finding", "reduction", "plan"]


class NodeFile(Protocol):
    """Where the transcripts of nodes go that have ended.

    Attributes:
        token: names the run there.
    """

    token: bytes

    def write(self, recorded: RecordedNode) -> None:
        """Write the transcript of a node, soon."""
        ...

    def add_rows(self, reading: str, links: Iterable[tuple[bytes, bytes]]) -> None:
        """Note by which columns rows are told apart, and which sets of rows are made of which."""
        ...


class RecordedNode(msgspec.Struct, gc=False):
    """What is taken down of a node.

    Attributes:
        id: the node's.
        kind: the kind of the answers that come of it: a finding, a reduction or a plan.
        kept: its transcript; once it has ended as bytes.
        keys: the keys of its findings and answers in the journal, with the unit's position; None
            if there are none.
        origins: the fingerprints of the rows that its agents may have read.
    """

    id: str
    kind: AnswerKind = "finding"
    kept: NodeTranscript | bytes = msgspec.field(default_factory=NodeTranscript)
    keys: dict[bytes, int | None] | None = None
    origins: frozenset[bytes] = frozenset()

    @property
    def transcript(self) -> NodeTranscript:
        """What its agents said and did; of a packed one a copy."""
        return unpack_node(self.kept) if isinstance(self.kept, bytes) else self.kept

    def pack(self) -> None:
        """Keep the transcript as bytes from now on: nothing is added to it any more."""
        if isinstance(self.kept, bytes):
            return
        try:
            self.kept = pack_node(self.kept)
        except UnicodeEncodeError:  # code of a model may have half of a surrogate pair
            return


@dataclass(slots=True)
class Space:
    """How many more characters and steps a run takes down."""

    characters: int = RUN_CHARACTERS
    steps: int = RUN_STEPS


@dataclass(slots=True)
class Recorder:
    """Takes down the conversations of a run, by node.

    Attributes:
        level: what is taken down of them.
        words: the names of columns and fields, which are shown in code.
        nodes: what is taken down, in the order in which nodes began to talk.
        file: where contents go once a node has ended; None if they stay here.
        space: how much more is taken down.
    """

    level: TraceLevel
    words: set[str] = field(default_factory=set)
    nodes: list[RecordedNode] = field(default_factory=list)
    file: NodeFile | None = None
    space: Space = field(default_factory=Space)

    @property
    def keeps_contents(self) -> bool:
        """Whether texts are kept."""
        return self.level == "full"

    @property
    def writes_file(self) -> bool:
        """Whether contents go to a file: then it has to be known which rows they are of."""
        return self.file is not None

    def learn_words(self, words: Iterable[object]) -> None:
        """Note names that are shown in code: of columns, and of fields of findings."""
        self.words.update(word for word in words if isinstance(word, str))

    def open_node(self, node_id: str, kind: AnswerKind) -> RecordedNode:
        """Begin to take down what happens in a node."""
        recorded = RecordedNode(node_id, kind)
        self.nodes.append(recorded)
        return recorded

    def end_node(self, recorded: RecordedNode, node_id: str) -> None:
        """Put away what a node did that has ended, under the id that it has in the end."""
        recorded.id = node_id
        if self.file is None:
            recorded.pack()
        else:
            self.file.write(recorded)

    def drop_contents(self, recorded: RecordedNode) -> None:
        """Let go of contents that are in the file."""
        transcript = recorded.transcript
        for conversation in transcript.conversations:
            read = [step.text for step in conversation.walk() if step.text]
            self._drop_texts(conversation, read)
        transcript.is_on_file = True
        recorded.pack()

    def _drop_texts(self, conversation: Conversation, read: list[str]) -> None:
        """Let go of what was said in a conversation, and in those within it."""
        steps: list[Step | Conversation] = []
        for step in conversation.steps:
            if isinstance(step, Conversation):
                self._drop_texts(step, read)
                steps.append(step)
            else:
                code = mask_code(step.code, self.words, read) if step.code else step.code
                steps.append(msgspec.structs.replace(step, text=None, code=code))
        conversation.steps = tuple(steps)
