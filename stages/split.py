"""Clean table -> encoded train, valid and test split; all that is fitted is fitted on train rows."""

from collections import Counter
from pathlib import Path

from pipeline.common.errors import PipelineError, exit_with_message
from pipeline.common.files import seal, write_json
from pipeline.data.storage import REPORT, SplitWriter
from pipeline.preprocess.clean_table import CleanTable
from pipeline.schema import SPLITS
from pipeline.split import repeats
from pipeline.split.assign import assign, train_rows
from pipeline.split.vocabulary import Encoder, fit_vocabulary
from stages import dataset_entry, new_folder


def main() -> None:
    name, entry, _ = dataset_entry(__doc__)
    table = CleanTable(Path("data/interim", name))
    column = entry.split.get("column")
    doubt = (table.origin or {}).get("doubtful_times")
    if entry.split.get("method") == "time" and doubt and "time" not in table.names:
        raise PipelineError(f"{name}: split method 'time': {doubt}")
    extra = table.load_extra(*([column] if column else []))
    repeated = repeats.of_log(table.field_blocks(), extra)
    assignment = assign(extra, name, repeated, **entry.split)

    vocabulary = fit_vocabulary(
        lambda field: train_rows(table.column_blocks(field), assignment), table.columns, **entry.encode
    )
    encoder = Encoder(vocabulary, table.column_blocks)
    truncated: Counter[str] = Counter()
    with new_folder(Path("data/processed", name)) as folder:
        write_json(folder / "vocabulary.json", vocabulary)
        write_json(folder / "schema.json", encoder.schema.to_json())
        with SplitWriter(folder, encoder.schema, extra, assignment) as writer:
            for block, fields in enumerate(table.field_blocks()):
                writer.write(encoder.ids(block, fields, truncated))
        found = repeated.report(assignment)
        report = {"dataset": name, "origin": table.origin, **writer.report}
        report |= {"truncated": dict(truncated), "repeated": found}
        write_json(folder / REPORT, report)
        seal(folder)
    end = "last" if entry.encode.get("slots_from") == "end" else "first"
    for field, values in truncated.items():
        if values:
            print(
                f"{name}: {field}: {values:,} values of bags are left out, since only the {end} of each row "
                "have slots (encode: max_slots, slots_from)"
            )
    rows = ", ".join(f"{writer.report[split]['rows']} {split} rows" for split in SPLITS)
    print(f"{name}: {encoder.schema.vocabulary_size} ids, {rows}{repeats.remark(found)}")


if __name__ == "__main__":
    exit_with_message(main)
