"""Raw files -> one clean table: row-wise cleaning, joins and the label; nothing is fitted here."""

from inspect import signature
from pathlib import Path

from pipeline.common.errors import PipelineError, exit_with_message
from pipeline.common.files import write_json
from pipeline.datasets import DATASETS
from pipeline.download.manifest import origin, verify
from pipeline.preprocess import clean_table
from pipeline.preprocess.rejects import PRINTED, RejectLog
from stages import dataset_entry, new_folder


def main() -> None:
    name, entry, _ = dataset_entry(__doc__)
    source = DATASETS[entry.source]
    of_source = signature(source.read).parameters.keys() & entry.preprocess
    for_read = {key: value for key, value in entry.preprocess.items() if key in of_source}
    for_table = {key: value for key, value in entry.preprocess.items() if key not in of_source}
    limit = {key: value for key, value in for_table.items() if key == "max_rejected"}  # of rows to score, too
    raw, rejects = Path("data/raw", name), RejectLog()
    manifest = verify(raw)
    with new_folder(Path("data/interim", name)) as folder:
        try:
            log = source.read(raw, rejects, **for_read)
        except PipelineError as error:
            where = f"params.yaml: data.{name}." if str(error).startswith("preprocess.") else ""
            raise PipelineError(f"{where}{error}") from None
        write_json(folder / "reading.json", {"source": entry.source, **for_read, **limit})
        report = clean_table.write(folder, log, rejects, name, origin(manifest), **for_table)
    doubt = report["origin"]["doubtful_times"]
    if doubt and not entry.preprocess.get("unverified_times"):
        print(f"{name}: {doubt}")
    print(
        f"{name}: {report['rows_in']} rows in, {report['rows_out']} out, {report['rejected']} corrupted, "
        f"{report['dropped']} left out, {report['clicks']} clicks"
    )
    for line in report["first_rejects"][:PRINTED]:
        print(f"  {line}")
    if len(report["first_rejects"]) > PRINTED:
        print(f"  more of them: data/interim/{name}/report.json")


if __name__ == "__main__":
    exit_with_message(main)
