"""Find the columns of ids that identify the user and the item of a row."""

from itertools import accumulate

from pipeline.schema import Domain, Schema


def column_of(schema: Schema, name: str | None, domain: Domain) -> int:
    """Return the column of ids of a single-valued field.

    Args:
        schema: the fields.
        name: of the field; None for the first single-valued field of the domain.
        domain: `user` or `item`, also the name of the model's option.

    Raises:
        ValueError: there is no such field; the message names the single-valued ones.
    """
    ends = list(accumulate(field.slots for field in schema.fields))
    single = [(field, end - 1) for field, end in zip(schema.fields, ends, strict=True) if field.slots == 1]
    for field, column in single:
        if field.name == name or (name is None and field.domain == domain):
            return column
    wanted = f"field {name!r}" if name is not None else f"field of the domain {domain}"
    known = ", ".join(field.name for field, _ in single) or "none"
    raise ValueError(f"no {wanted} has one value a row: set `{domain}` to one that has ({known})")
