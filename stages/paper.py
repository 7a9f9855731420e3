"""A table or figure of a paper, made again: what is missing is trained, what is there is taken."""

from pathlib import Path

from pipeline.common import engine
from pipeline.common.errors import PipelineError, exit_with_message, unknown
from pipeline.config import yaml_file
from pipeline.config.params import Params
from pipeline.data.storage import read_report
from pipeline.papers import experiment, pages, results
from pipeline.papers.exhibits import EXHIBITS
from pipeline.tracking.live import NullRun
from stages import alone, arguments, new_folder


def main() -> None:
    (name,) = arguments(__doc__, "paper")
    alone()
    if name not in EXHIBITS:
        raise PipelineError(unknown("table or figure", name, EXHIBITS))
    exhibit = EXHIBITS[name]
    _, values = yaml_file.read(Path("params.yaml"))
    file = Params(values, every_entry=False)
    processes = engine.processes(file.processes)
    logs = experiment.datasets(exhibit, values, others=file.paper.other_datasets)
    with new_folder(Path("data/papers", name)) as folder:
        if exhibit.attention:
            condition, *_ = experiment.conditions(exhibit, file)
            found = {
                log: experiment.attention(exhibit, values, names[0], condition, processes)
                for log, names in logs.items()
            }
            pages.write(folder, exhibit, {"exhibit": name, "condition": condition, "logs": found})
            return
        cells, ratios, absent = {}, {}, {}
        for log, names in logs.items():
            absent[log] = experiment.absent(exhibit, values, names)
            made = []
            for cell in experiment.run(exhibit, values, names, absent[log], processes, NullRun()):
                print(experiment.told(exhibit, cell), flush=True)
                made.append(cell)
            cells[log] = values["data"][log]["source"], made
            rows = read_report(Path("data/processed", log))
            ratios[log] = rows["test"]["rows"] / rows["train"]["rows"]
        pages.write(folder, exhibit, results.join(exhibit, cells, ratios, absent))
    print(f"data/papers/{name}/README.md")


if __name__ == "__main__":
    exit_with_message(main, kept="finished trainings and the last checkpoint are kept")
