"""Values of a file against types, and what is wrong with them in words."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from inspect import isclass
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.keys import unknown_key

NO_BLOCK = "should be a block of keys, as in `key: value`"
# what a list that is empty may name; the others only say that it is
EXAMPLES = {"datasets": "synthetic", "models": "fm", "seeds": "1"}
BOUNDS = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
OUT_OF_RANGE = {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}


class Strict(BaseModel):
    """Values from a file: no unknown key, no silent change of type, no infinity and no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def explain(
    error: ValidationError,
    kind: type[BaseModel],
    values: Any,
    place: str,
    origins: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, str]:
    """Return the dotted key of the first wrong value, and what is wrong with it.

    Args:
        kind: what `values` should have been.
        place: the key of the block `values`; empty for the whole file.
        origins: the block that a key of `values` comes from, where that is not `place`.
    """
    # where a required key is misspelt, it is missing, too: the key that is there says more
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    loc, hint, value = first["loc"], kind, values
    path = [origins.get(str(loc[0]), place) if loc else place]
    for step in loc:  # steps that are not in the value name a branch of a union, or a missing key
        if not _contains(value, step):
            break
        if first["type"] == "extra_forbidden" and step == loc[-1]:
            break
        path.append(str(step))
        hint, value = _inside(hint, step), value[step]
    reason = _reason(first, hint)
    if first["type"] == "missing":
        path.append(str(loc[-1]))
    elif not isinstance(first["input"], dict) and first["type"] not in ("extra_forbidden", "too_short"):
        allowed = re.findall("'(.*?)'", reason) if first["type"] == "literal_error" else []
        near = get_close_matches(str(first["input"]), allowed, n=1)
        if first["input"] is not None or not reason.startswith("is empty"):
            reason += f" (it is {said(first['input'])}{f'; did you mean {near[0]!r}?' if near else ''})"
    return ".".join(filter(None, path)), reason


def _reason(first: Any, hint: Any) -> str:
    """Say what is wrong with a value of the type `hint`."""
    kind, key, context = first["type"], first["loc"][-1] if first["loc"] else "", first.get("ctx", {})
    bounds = _bounds(hint)
    if kind == "finite_number":
        bounds = ["a finite number", *bounds]
        return f"must be {' and '.join(bounds)}"
    if kind in OUT_OF_RANGE and bounds:
        return "must be " + " and ".join(bounds)
    if kind == "extra_forbidden":
        return unknown_key(key, _keys(hint))
    if kind == "missing":
        missing = _inside(hint, key)
        may_be_empty = get_origin(missing) is dict
        if isclass(missing) and issubclass(missing, BaseModel):
            may_be_empty = not any(field.is_required() for field in missing.model_fields.values())
        return f"is missing; {f'write `{key}: {{}}` for its defaults' if may_be_empty else 'give it a value'}"
    nothing = first["input"] is None
    if (kind == "too_short" and not context["actual_length"]) or (kind == "list_type" and nothing):
        return f"is empty{_example(str(key))}"
    if kind in ("dict_type", "model_type"):
        return _no_block(hint) if nothing else NO_BLOCK
    if kind == "list_type":
        return "should be a list, as in `[a, b]`"
    reason = first["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return re.sub(" or instance of .*", "", reason).replace("an instance of Sequence", "a list")


def said(value: Any) -> str:
    """Return a value of the file as a message shows it."""
    return "empty" if value is None else repr(value)


def _example(key: str) -> str:
    return f": name at least one, such as `{key}: [{EXAMPLES[key]}]`" if key in EXAMPLES else ""


def _no_block(hint: Any) -> str:
    """Say what belongs into a block that has no keys."""
    needed = []
    if isclass(hint) and issubclass(hint, BaseModel):
        needed = [name for name, field in hint.model_fields.items() if field.is_required()]
    return f"is empty: it needs {', '.join(needed)}" if needed else "is empty: give it keys, or write `{}`"


def _contains(value: Any, step: int | str) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def type_of(field: FieldInfo) -> Any:
    """Return the type of a field with its annotations, which pydantic keeps apart."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _inside(hint: Any, step: int | str) -> Any:
    """Return the type of a block's key or of a list's elements; None where there is no such key."""
    if isclass(hint) and issubclass(hint, BaseModel):
        field = hint.model_fields.get(str(step))
        return None if field is None else type_of(field)
    if get_origin(hint) is Annotated:
        return _inside(get_args(hint)[0], step)
    if get_origin(hint) in (Union, UnionType):
        return next((found for arg in get_args(hint) if (found := _inside(arg, step)) is not None), None)
    return get_args(hint)[-1] if get_args(hint) else None


def _keys(hint: Any) -> list[str]:
    """Return the keys that a block may have, of a union those of its first block."""
    if isclass(hint) and issubclass(hint, BaseModel):
        return list(hint.model_fields)
    return next((keys for arg in get_args(hint) if (keys := _keys(arg))), [])


def _bounds(hint: Any) -> list[str]:
    """Return what a type's annotation demands of a number, in words."""
    words = []
    for arg in get_args(hint):
        if type(arg) in BOUNDS:
            words.append(f"{BOUNDS[type(arg)]} {getattr(arg, type(arg).__name__.lower()):.10g}")
        else:
            words += _bounds(arg)
    return words
