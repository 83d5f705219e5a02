"""Say which type is meant by what is not a type: by its name in SQL, JSON, numpy or pandas."""

from __future__ import annotations

from pandas_amr._records.suggest import closest_name

TYPE_OF_NAME = {
    "str": "str",
    "string": "str",
    "text": "str",
    "varchar": "str",
    "char": "str",
    "object": "str",
    "int": "int",
    "integer": "int",
    "bigint": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "number": "float",
    "real": "float",
    "numeric": "float",
    "bool": "bool",
    "boolean": "bool",
    "date": "datetime.date",
    "datetime": "datetime.datetime",
    "timestamp": "datetime.datetime",
    "time": "datetime.time",
    "timedelta": "datetime.timedelta",
    "duration": "datetime.timedelta",
    "decimal": "decimal.Decimal",
    "uuid": "uuid.UUID",
    "list": "list",
    "array": "list",
    "dict": "dict",
    "json": "dict",
    "dataframe": "pd.DataFrame",
    "category": "a list of its choices",
    "enum": "a list of its choices",
}
CHOICES = "a list of its choices"
SIZES = "0123456789[]us_"  # what numpy, pandas and Arrow write behind the name of a type


def advise_type(value: object) -> str:
    """Suggest the type that is meant by a text, or by a type of numpy or pandas.

    Returns:
        A sentence with a space before it; an empty text if no type is close.

    Example:
        >>> import numpy as np
        >>> advise_type(np.int64), advise_type("float64"), advise_type("weather")
        (' Did you mean the type int?', ' Did you mean the type float, without quotes?', '')
    """
    meant = type_of_name(_name_of(value))
    if meant is None:
        return ""
    if meant == CHOICES:
        return f" Did you mean {CHOICES}?"
    quoted = ", without quotes" if isinstance(value, str) else ""
    return f" Did you mean the type {meant}{quoted}?"


def _name_of(value: object) -> str:
    """Return the name of a type, as text: of a class, or of an object that stands for a type."""
    if isinstance(value, type):
        return value.__name__
    return str(value)


def type_of_name(name: str, *, least: float = 0.6) -> str | None:
    """Return the type that a name stands for, as it is written in Python; None if there is none.

    Args:
        name: the name, perhaps mistyped.
        least: how much it must be like the name of a type, from 0 to 1.
    """
    word = name.strip().casefold().partition("(")[0].partition("[")[0]
    for known in (word, word.rstrip(SIZES), word.lstrip("u").rstrip(SIZES)):
        if known in TYPE_OF_NAME:
            return TYPE_OF_NAME[known]
    closest = closest_name(word, TYPE_OF_NAME, least=least)
    return None if closest is None else TYPE_OF_NAME[str(closest)]
