"""What MLflow has of the files, known from one look at all runs instead of several at each."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

# tag of an experiment: the key of the report it shows; of a run: `.<key>` is added for each report it is in
REPORT = "mlflow.pipeline.report"
MODEL = "mlflow.pipeline.logged_model"
# tag of an experiment and of a run: how metrics and runs are named there; `sync` brings older ones up to date
LAYOUT, NOW = "mlflow.pipeline.layout", "2"


@dataclass(frozen=True)
class Shown:
    """A run that is not deleted, as far as it matters here.

    Attributes:
        artifacts: the address of its artifacts.
    """

    id: str
    status: str
    artifacts: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Progress:
    """What is published.

    Attributes:
        whole: by the key of each complete run that lacks neither model nor artifacts, the names of its seeds
            and trials. A run is not whole while another one with its key, an earlier attempt, is beside it.
        reported: (key of a run, key of a report) where the run has the test metrics of that report.
        shown: keys of the reports that the experiments show now.
        champions: registered models whose champion can be loaded.
        hidden: datasets whose experiment is deleted.
        running: number of runs in progress, or left open by a killed process.
        moved: whether the paths of artifacts point to where this checkout was before.
        outdated: whether metrics have the names of an earlier version.
    """

    whole: Mapping[str, frozenset[str]] = field(default_factory=dict)
    reported: frozenset[tuple[str, str]] = frozenset()
    shown: frozenset[str] = frozenset()
    champions: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    running: int = 0
    moved: bool = False
    outdated: bool = False

    def has(self, key: str, children: Iterable[str] = ()) -> bool:
        """Whether a run is published as a whole, with these seeds and trials."""
        return self.whole.get(key, frozenset()).issuperset(children) and key in self.whole

    @classmethod
    def of(
        cls,
        runs: Iterable[Shown],
        models: Mapping[str, str],
        champions: Mapping[str, str],
        *,
        shown: Iterable[str] = (),
        hidden: Iterable[str] = (),
        moved: bool = False,
        outdated: bool = False,
        is_there: Callable[[str, str], bool] = lambda address, file: True,  # noqa: ARG005
    ) -> "Progress":
        """Return what these runs and models amount to.

        Args:
            runs: with a `pipeline.key`, not deleted.
            models: address of the artifacts of each logged model that is not deleted.
            champions: by registered model, the source of the version that its alias `champion` leads to.
            is_there: whether an address contains a file.
        """
        runs = list(runs)
        sound = {model for model, address in models.items() if is_there(address, "MLmodel")}
        parents = {run.id: run for run in runs if "mlflow.parentRunId" not in run.tags}
        names = dict[str, list[str]]()
        attempts = dict[str, int]()
        for run in runs:
            key, parent = run.tags["pipeline.key"], run.tags.get("mlflow.parentRunId")
            if parent is None:
                attempts[key] = attempts.get(key, 0) + 1
            elif parent in parents:
                names.setdefault(parent, []).append(key.rpartition("/")[2])
            else:  # of a run that was deleted
                owner = key.rpartition("/")[0]
                attempts[owner] = attempts.get(owner, 0) + 1
        whole, reported = dict[str, frozenset[str]](), set[tuple[str, str]]()
        for run in parents.values():
            key, mine = run.tags["pipeline.key"], names.get(run.id, [])
            has_model = run.tags[MODEL] in sound if MODEL in run.tags else True
            report = run.tags.get("pipeline.stage") == "evaluate"
            if (
                run.tags.get("pipeline.complete") == "true"
                and run.tags.get(LAYOUT) == NOW
                and attempts[key] == 1
                and len(set(mine)) == len(mine)
                and has_model
                and is_there(run.artifacts, "report.json" if report else "run.json")
            ):
                whole[key] = frozenset(mine)
            reported |= {
                (key, tag.removeprefix(f"{REPORT}.")) for tag in run.tags if tag.startswith(f"{REPORT}.")
            }
        return cls(
            whole,
            frozenset(reported),
            frozenset(shown),
            frozenset(name for name, source in champions.items() if source.removeprefix("models:/") in sound),
            frozenset(hidden),
            sum(run.status == "RUNNING" and "mlflow.pipeline.process" in run.tags for run in runs),
            moved,
            outdated,
        )
