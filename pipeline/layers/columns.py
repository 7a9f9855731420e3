"""Find the columns of ids that identify the user and the item of a row, and those of its histories."""

from pipeline.schema import Role, Schema


def column_of(schema: Schema, role: Role) -> int:
    """Return the column of ids of the field that is declared as the user, or the item, of a row.

    Raises:
        ValueError: none is; the message says where to declare it, and names the fields that could be.
    """
    for column, i in enumerate(schema.field_of_slot):
        if schema.fields[i].role == role:
            return column
    single = ", ".join(field.name for field in schema.fields if field.slots == 1) or "none"
    raise ValueError(
        f"needs the {role} of each row, and this dataset declares none: name the field that identifies it "
        f"(`{role}: <field>` in the dataset's block `preprocess`; fields of one value a row: {single}), or "
        "remove the model"
    )


def bags_of(schema: Schema, column: int) -> list[list[int]]:
    """Return the columns of each bag whose values are those of a column's field (`Field.table`)."""
    name = schema.fields[schema.field_of_slot[column]].name
    found: dict[int, list[int]] = {}
    for slot, field in enumerate(schema.field_of_slot):
        if schema.fields[field].table == name:
            found.setdefault(field, []).append(slot)
    return list(found.values())
