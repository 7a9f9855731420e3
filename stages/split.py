"""Clean table -> encoded train, valid and test split; all that is fitted is fitted on train rows."""

import sys
from pathlib import Path

from pipeline.common.errors import PipelineError, error_context, exit_with_message, unknown
from pipeline.common.files import seal, write_json
from pipeline.data.storage import REPORT, SplitWriter, write_vectors
from pipeline.preprocess.clean_table import CleanTable
from pipeline.schema import SPLITS
from pipeline.split import repeats, vectors, warm
from pipeline.split.assign import assign, remark, scarce, train_rows
from pipeline.split.vocabulary import Encoder, fit_vocabulary
from stages import dataset_entry, new_folder


def main() -> None:
    name, entry, settings = dataset_entry(__doc__)
    table = CleanTable(Path("data/interim", name))
    column = entry.split.get("column")
    doubt = (table.origin or {}).get("doubtful_times")
    method = entry.split.get("method")
    if method in ("time", "days") and doubt and "time" not in table.names:
        raise PipelineError(f"{name}: split method {method!r}: {doubt}")
    extra = table.load_extra(*([column] if column else []))
    repeated = repeats.of_log(table.field_blocks(), extra)
    assignment = assign(extra, name, repeated, **entry.split)

    encode = dict(entry.encode)
    packages = encode.pop("warm_start", None)
    for model in packages or {}:
        if model not in settings.blocks:
            known = unknown("model", model, settings.blocks)
            raise PipelineError(f"data.{name}.encode.warm_start: {known}")
    with new_folder(Path("data/processed", name)) as folder:
        earlier = warm.take(folder, name, warm_start=packages)
        with error_context(f"data.{name}.encode"):
            vocabulary = fit_vocabulary(
                lambda field: train_rows(table.column_blocks(field), assignment),
                table.columns,
                earlier=earlier,
                vectors=(given := table.vectors()),
                **encode,
            )
        encoder = Encoder(vocabulary, table.column_blocks)
        write_json(folder / "vocabulary.json", vocabulary)
        write_json(folder / "schema.json", encoder.schema.to_json())
        write_vectors(folder, vectors.tables(vocabulary, given))
        with SplitWriter(folder, encoder.schema, extra, assignment) as writer:
            truncated = writer.write(table.field_blocks(), encoder)
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
    counts: dict[str, int] = {split: writer.report[split]["rows"] for split in SPLITS}
    rows = ", ".join(f"{count} {split} rows" for split, count in counts.items())
    print(f"{name}: {encoder.schema.vocabulary_size} ids, {rows}{repeats.remark(found)}")
    for words in filter(None, [remark(counts, entry.split.get("method", "random")), *scarce(writer.report)]):
        print(f"warning: {name}: {words}", file=sys.stderr)


if __name__ == "__main__":
    exit_with_message(main)
