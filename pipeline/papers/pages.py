"""The files of an exhibit: values, picture, page and table."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.common.errors import PipelineError, unknown
from pipeline.common.files import make_folder, write_json, write_text
from pipeline.evaluate.plot_style import save
from pipeline.papers import pictures, report, results
from pipeline.papers.exhibit import Block, Exhibit
from pipeline.papers.exhibits import EXHIBITS
from pipeline.papers.schema import VALUES, load

PICTURE, STATEMENTS = "picture.png", "statements.csv"


def write(folder: Path, exhibit: Exhibit, found: Block) -> None:
    """Write what `results.join` or `union` returned, or the attention of some logs, into a folder."""
    logs = found["logs"]
    if exhibit.attention:
        picture, statements = pictures.attention(exhibit, logs), None
        page, table = report.attention_page(exhibit, found, PICTURE), report.attention_csv(logs)
    else:
        picture = (pictures.sweep if exhibit.sweep else pictures.table)(exhibit, found)
        page, table = report.to_markdown(exhibit, found, PICTURE), report.to_csv(exhibit, found)
        statements = report.statements_csv(exhibit, found)
    save(picture, folder / PICTURE)
    write_json(folder / VALUES, found)
    write_text(folder / "table.csv", table)
    if statements is not None:
        write_text(folder / STATEMENTS, statements)
    write_text(folder / "README.md", page)


def unite(folders: Sequence[Path], out: Path) -> Path:
    """Put a table or figure that was made in several folders together; return the page.

    Args:
        out: a new folder, an empty one, or one with such a table, which is replaced.

    Raises:
        PipelineError: a folder has no results, or of another table, or two have the same split; `out` has
            files that are no table.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / VALUES).exists():
        raise PipelineError(f"{out} has files that are no paper's table: give a new folder")
    found = {str(folder): load(folder) for folder in folders}
    if len(found) < len(folders):
        raise PipelineError("a folder is given twice")
    if len(found) > 1 and out.resolve() in {folder.resolve() for folder in folders}:
        raise PipelineError(f"{out} is one of the folders that are put together: give another one to write")
    if len(names := {values["exhibit"] for values in found.values()}) > 1:
        raise PipelineError(f"{' and '.join(sorted(names))} are not one table: give folders of one")
    (name,) = names
    if name not in EXHIBITS:
        raise PipelineError(f"{folders[0] / VALUES}: {unknown('table or figure', name, EXHIBITS)}")
    exhibit = EXHIBITS[name]
    for where, values in found.items():
        if exhibit.attention != isinstance(values["logs"], dict):
            raise PipelineError(f"{where}: logs: {results.AGAIN}")
    united = _attention(found) if exhibit.attention else results.union(exhibit, found)
    make_folder(out)
    write(out, exhibit, united)
    return out / "README.md"


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
