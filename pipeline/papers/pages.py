"""The files of an exhibit: values, picture, page and table."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import make_folder, read_json, write_json, write_text
from pipeline.evaluate.plot_style import save
from pipeline.papers import pictures, report, results
from pipeline.papers.exhibit import Block, Exhibit
from pipeline.papers.exhibits import EXHIBITS

VALUES, PICTURE = "results.json", "picture.png"


def write(folder: Path, exhibit: Exhibit, found: Block) -> None:
    """Write what `results.join` or `union` returned, or the attention of some logs, into a folder."""
    write_json(folder / VALUES, found)
    if exhibit.attention:
        logs = found["logs"]
        save(pictures.attention(exhibit, logs), folder / PICTURE)
        page, table = report.attention_page(exhibit, logs, PICTURE), report.attention_csv(logs)
    else:
        draw = pictures.sweep if exhibit.sweep else pictures.table
        save(draw(exhibit, found), folder / PICTURE)
        page, table = report.to_markdown(exhibit, found, PICTURE), report.to_csv(found)
    write_text(folder / "README.md", page)
    write_text(folder / "table.csv", table)


def unite(folders: Sequence[Path], out: Path) -> Path:
    """Put a table or figure that was made in several folders together; return the page.

    Raises:
        PipelineError: a folder has no results, or not of the same table, or two have the same split.
    """
    found = {str(folder): _values(folder) for folder in folders}
    if len(names := {values.get("exhibit") for values in found.values()}) > 1:
        raise PipelineError(f"{' and '.join(sorted(map(str, names)))} are not one table: give folders of one")
    (name,) = names
    if name not in EXHIBITS:
        raise PipelineError(f"{folders[0] / VALUES}: {unknown('table or figure', str(name), EXHIBITS)}")
    exhibit = EXHIBITS[name]
    united = _attention(found) if exhibit.attention else results.union(exhibit, found)
    make_folder(out)
    write(out, exhibit, united)
    return out / "README.md"


def _values(folder: Path) -> Block:
    if not (folder / VALUES).is_file():
        raise PipelineError(f"{folder} has no {VALUES}: give folders of data/papers, such as "
                            "data/papers/flsest-table-1")  # fmt: skip
    values: Block = read_json(folder / VALUES)
    return values


def _attention(found: dict[str, Block]) -> Block:
    conditions = {values["condition"] for values in found.values()}
    if len(conditions) > 1:
        raise PipelineError(f"one is of {' and one of '.join(sorted(conditions))} settings: give one kind")
    logs: Block = {}
    for where, values in found.items():
        if twice := logs.keys() & values["logs"].keys():
            raise PipelineError(f"{min(twice)} is in {where} and in another folder: give one of them")
        logs |= values["logs"]
    return {**next(iter(found.values())), "logs": logs}
