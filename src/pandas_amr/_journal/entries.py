"""Findings in the journal: as JSON that a model could have given, so that look-ups check them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pandas_amr._types.arrow_values import json_record, json_scalar
from pandas_amr._types.canonical import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._findings.finding_type import FindingType

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Check:
    """The check that findings of one type must pass now.

    Attributes:
        made: whether a user's function made them, and not a model.
    """

    kind: FindingType
    made: bool = False

    def __call__(self, form: dict[str, Any]) -> dict[str, Any] | None:
        """Check a finding in JSON; return the record as Arrow takes it, or None."""
        return self.kind.record(form, empty_texts=self.made, fits=False)[0]

    def is_stable(self, form: dict[str, Any], record: Mapping[str, Any]) -> bool:
        """Whether the JSON of a record is read as that record again.

        It is not if a validator changes its own output.
        """
        again = self(form)
        if again is None:
            return False
        if again == record:
            return True
        return canonical_json(json_record(again, self.kind.model)) == canonical_json(form)


# Writing


def encode(value: object) -> str:
    """Encode an answer as JSON."""
    return _ENCODER.encode(value)


def _encode_scalar(value: object) -> Any:
    """Convert what JSON has no form for: code submits dates and decimals as they are."""
    return json_scalar(value, type(value))


_ENCODER = json.JSONEncoder(default=_encode_scalar, separators=(",", ":"))


def find_readable_form(
    record: Mapping[str, Any], check: Check, said: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return the JSON that is read as a record again: ``said`` if it passes, else the record's.

    Return None if neither is.
    """
    if said is not None and check(json.loads(encode(said))) is not None:
        return said
    form = json_record(record, check.kind.model)
    return form if check.is_stable(form, record) else None


# Reading


def read_findings(
    texts: Mapping[Key, str], check: Check, *, former: bool = False
) -> dict[Key, dict[str, Any]]:
    """Read entries; those that are damaged or do not pass the check are left out.

    Entries of the ``former`` format hold records that have passed the validators. Those that the
    validators would change now are left out, too.
    """
    records: dict[str, dict[str, Any] | None] = {}  # by text: few of many findings differ
    passed: dict[Key, dict[str, Any]] = {}
    for key, text in texts.items():
        if text not in records:
            records[text] = _read_former(text, check) if former else _read(text, check)
        record = records[text]
        if record is not None:
            passed[key] = record
    fitting = check.kind.find_fitting(list(passed.values()))
    return {
        key: record for (key, record), fits in zip(passed.items(), fitting, strict=True) if fits
    }


def _read(text: str, check: Check) -> dict[str, Any] | None:
    form = decode(text)
    return check(form) if isinstance(form, dict) else None


def _read_former(text: str, check: Check) -> dict[str, Any] | None:
    record = decode(text)
    if not isinstance(record, dict) or record.keys() != check.kind.model.model_fields.keys():
        return None
    try:
        form = json_record(record, check.kind.model, former=True)
    except (ValueError, RecursionError):  # an untyped value, whose JSON is damaged
        return None
    return check(form) if check.is_stable(form, record) else None


def decode(text: str) -> Any:
    """Decode JSON; return None if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
