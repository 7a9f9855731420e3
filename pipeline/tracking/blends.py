"""Blends in MLflow's registry: of each a registered model, which serves like that of the champion.

The alias `champion` of `ctr-<dataset>-blend-<kind>` is on the blend of the report that the experiment shows.
A blend competes with nobody: it is the answer to the question how far several models together come.
"""

import socket
from typing import TYPE_CHECKING

from pipeline.common.files import digest
from pipeline.tracking.page import of_blend
from pipeline.tracking.record import Block
from pipeline.tracking.registry import ALIAS, create, describe, leader, registered_name
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

FIGURES = ("valid_auc", "valid_logloss", "auc", "logloss")


def names(report: Block) -> set[str]:
    """Return the registered names of a report's blends."""
    return {_name(report, blend) for blend in report.get("blends", [])}


def register(
    store: Store, experiment: str, evaluation: "Run", report: Block, *, leads: bool, link: str
) -> bool:
    """Make each blend of a report a version of its registered model; return whether anything changed.

    Args:
        evaluation: the run of the report, to which the models belong.
        leads: whether the report is the one that is shown; where a blend has no version with the alias, the
            first one gets it.
        link: to the report.

    Raises:
        PipelineError: a blend cannot be packed: files of its members are missing.
        MlflowFailure: MLflow refused a model.
    """
    changed = False
    for blend in report.get("blends", []):
        changed |= _register(store, experiment, evaluation, report, blend, leads=leads, link=link)
    return changed


def _name(report: Block, blend: Block) -> str:
    return f"{registered_name(report)}-{_short(blend)}"


def _short(blend: Block) -> str:
    """Return a blend's kind as a part of a name."""
    from pipeline.evaluate.runs import AGAIN  # with torch

    return f"blend-{blend['kind'].replace(AGAIN, '-valid')}"


def _register(
    store: Store, experiment: str, evaluation: "Run", report: Block, blend: Block, *, leads: bool, link: str
) -> bool:
    name, client = _name(report, blend), store.client
    key = digest([blend["key"], blend["calibration"], report["negatives_kept"]])
    create(client, name)
    versions = client.search_model_versions(f"name = '{name}'")
    sound = (each for each in versions if each.tags.get("key") == key)
    chosen = next(
        (each for each in sound if store.has_model(str(each.source).removeprefix("models:/"))), None
    )
    new = chosen is None
    if chosen is None:
        model = _log(store, experiment, evaluation, report, blend, key)
        figures = {f"{'' if n.startswith('valid') else 'test_'}{n}": blend[n] for n in FIGURES}
        tags = {
            "model": "blend",
            "variant": blend["kind"],
            "key": key,
            "checkout": f"{socket.gethostname()}:{store.root}",
            **{n: f"{value:.6f}" for n, value in figures.items() if value is not None},
        }
        source = f"models:/{model}"
        chosen = client.create_model_version(name, source, evaluation.info.run_id, tags=tags, model_id=model)
    describe(client, chosen, of_blend(report, blend, name, link))
    now = leader(client, name)
    if now is not None and (str(now.version) == str(chosen.version) or not leads):
        return new
    client.set_registered_model_alias(name, ALIAS, chosen.version)
    return True


def _log(store: Store, experiment: str, evaluation: "Run", report: Block, blend: Block, key: str) -> str:
    """Log a blend's package as a model of the report's run; return its id."""
    from pipeline.evaluate.runs import AGAIN  # with torch
    from pipeline.scoring import pack
    from pipeline.tracking.models import log_package

    kind, refit = blend["kind"].removesuffix(AGAIN), blend["kind"].endswith(AGAIN)
    package = pack.pack(store.root, report["dataset"], "blend", kind, refit=refit)
    members = {
        f"member.{number}": f"{part['weight']} x {part['model']} ({part['variant']})"
        for number, part in enumerate(blend["members"], 1)
    }
    return log_package(
        store,
        experiment,
        evaluation.info.run_id,
        package,
        name=_short(blend),
        tags={"pipeline.key": key},
        params={"model": "blend", "variant": blend["kind"], **members},
        metadata={"key": key, "dataset": report["dataset"], "model": "blend", "variant": blend["kind"]},
    )
