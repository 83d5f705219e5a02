"""Findings in the journal: as JSON that a model could have said, so that each look-up checks them as an answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pandas_amr._types.arrow import json_form, scalar_form
from pandas_amr._types.canonical import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._findings.finding_type import FindingType

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Check:
    """Today's check of findings of one type.

    Attributes:
        made: whether a function of the user's made them, and not a model.
    """

    kind: FindingType
    made: bool = False

    def __call__(self, form: dict[str, Any]) -> dict[str, Any] | None:
        """Check a finding in the form that a model gives: a record as Arrow takes it if it fits, or None."""
        return self.kind.record(form, empty_texts=self.made, fits=False)[0]

    def is_stable(self, form: dict[str, Any], record: Mapping[str, Any]) -> bool:
        """Whether the form of a checked record is read back as that record: not if validators change it once more."""
        again = self(form)
        if again is None or again == record:
            return again is not None
        return canonical_json(json_form(again, self.kind.model)) == canonical_json(form)


# Writing


def encode(value: Any) -> str:
    """Write an answer as the journal keeps it."""
    return _ENCODER.encode(value)


def _encoded(value: Any) -> Any:
    """What JSON has no form for: code hands in dates, decimals and so on as they are."""
    return scalar_form(value, type(value))


_ENCODER = json.JSONEncoder(default=_encoded, separators=(",", ":"))


def readable_form(
    record: Mapping[str, Any], check: Check, said: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Find the JSON that is read back as a record: what was said, if it passes as it stands; else the record's own.

    None if neither is.
    """
    if said is not None and check(json.loads(encode(said))) is not None:
        return said
    form = json_form(record, check.kind.model)
    return form if check.is_stable(form, record) else None


# Reading


def read_findings(
    texts: Mapping[Key, str], check: Check, *, former: bool = False
) -> dict[Key, dict[str, Any]]:
    """Read entries of the journal; what is damaged or does not pass today's check is left out.

    Those of the ``former`` format hold records that validators have seen already: what these would change now is left
    out, too.
    """
    known: dict[str, dict[str, Any] | None] = {}
    found: dict[Key, dict[str, Any]] = {}
    for key, text in texts.items():
        if text not in known:  # few findings of many are different ones
            known[text] = _read_former(text, check) if former else _read(text, check)
        record = known[text]
        if record is not None:
            found[key] = record
    fitting = check.kind.find_fitting(list(found.values()))
    return {key: record for (key, record), fits in zip(found.items(), fitting, strict=True) if fits}


def _read(text: str, check: Check) -> dict[str, Any] | None:
    form = decode(text)
    return check(form) if isinstance(form, dict) else None


def _read_former(text: str, check: Check) -> dict[str, Any] | None:
    record = decode(text)
    if not isinstance(record, dict) or record.keys() != check.kind.model.model_fields.keys():
        return None
    try:
        form = json_form(record, check.kind.model, former=True)
    except (ValueError, RecursionError):  # a value of any shape, whose JSON is damaged
        return None
    return check(form) if check.is_stable(form, record) else None


def decode(text: str) -> Any:
    """Read JSON; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
