"""Mark the classes that users import from the package itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pandas_amr._records.keywords import suggest_keywords
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._records.tracebacks import user_tracebacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PACKAGE = "pandas_amr"

SYNONYMS = {  # other words for attributes
    "df": "frame",
    "data": "frame",
    "dataframe": "frame",
    "answer": "output",
    "value": "output",
    "errors": "failures",
    "cost": "usage",
    "to_csv": "frame.to_csv",
    "to_excel": "frame.to_excel",
    "to_parquet": "frame.to_parquet",
    "to_sql": "frame.to_sql",
}

AnyClass = TypeVar("AnyClass", bound=type)


def public(kind: AnyClass) -> AnyClass:
    """Name a class by its package, in tracebacks, reprs and pickles: ``pandas_amr.Plan``.

    What its methods raise shows the user's line and none of ours.
    A keyword that it does not take, and an attribute that it does not have, are refused with the
    name that may be meant. Write it above all other decorators: they still need the module of the
    class.
    """
    kind.__module__ = PACKAGE
    own: Any = vars(kind)
    if own.get("_is_protocol"):  # what is added would be asked of every implementation
        return user_tracebacks(kind)
    if hasattr(own.get("__init__"), "__code__"):
        kind.__init__ = suggest_keywords(own["__init__"], kind.__name__)  # type: ignore[misc]
    kind.__getattr__ = _explain_attribute(getattr(kind, "__getattr__", None))  # type: ignore[attr-defined]
    return user_tracebacks(kind)


def _explain_attribute(
    inherited: Callable[[Any, str], Any] | None,
) -> Callable[[Any, str], Any]:
    """Make the method that Python calls for an attribute that is not there.

    Args:
        inherited: the method that the class has already, if any.
    """

    def explain(instance: object, name: str) -> Any:
        if inherited is not None:
            try:
                return inherited(instance, name)
            except AttributeError:
                if name.startswith("_"):
                    raise
        # Python and notebooks look for many private names, dir() among them.
        known = () if name.startswith("_") else dir(instance)
        refuse_attribute(f"{type(instance).__name__!r} object", name, known)

    return explain


def refuse_attribute(owner: str, name: str, known: Iterable[str]) -> NoReturn:
    """Refuse an attribute that does not exist.

    Raises:
        AttributeError: always; the message names the closest attribute.
    """
    message = f"{owner} has no attribute {name!r}"
    names = [other for other in known if not other.startswith("_") and other != name]
    meant = {word: other for word, other in SYNONYMS.items() if other.partition(".")[0] in names}
    suggestion = did_you_mean(name, names, synonyms=meant)
    if suggestion:
        message += f".{suggestion}"
    # Without an object, Python does not add its own suggestion to the message.
    raise AttributeError(message, name=name, obj=None)
