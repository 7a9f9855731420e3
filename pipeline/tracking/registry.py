"""MLflow's model registry: one registered model per dataset, its champion under the alias `champion`."""

from typing import TYPE_CHECKING

from pipeline.tracking import record
from pipeline.tracking.record import Block
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


def registered_name(report: Block) -> str:
    """Return the registered name of a dataset's champion."""
    return f"ctr-{report['dataset']}"


def register(store: Store, report: Block, run: "Run") -> bool:
    """Give a run's model the alias `champion`, registering it if necessary; return whether it changed."""
    from mlflow.exceptions import MlflowException

    client, best, name = store.client, report["champion"], registered_name(report)
    result, model = record.champion(report), run.data.tags["mlflow.pipeline.logged_model"]
    try:
        registered = client.get_registered_model(name)
    except MlflowException:
        registered = client.create_registered_model(
            name,
            description=f"Click probability on {report['dataset']}; `champion`: best on validation data.",
        )
    tags = {
        "model": best["model"],
        "variant": best["variant"],
        "seed": run.data.tags["pipeline.seed"],
        "key": best["key"],
        "valid_auc": f"{result['valid_auc']:.4f}",
        **{f"test_{figure}": f"{value:.4f}" for figure, value in result["mean"].items() if value is not None},
    }
    versions = client.search_model_versions(f"name = '{name}'")
    chosen = next((each for each in versions if each.tags.get("key") == best["key"]), None)
    if chosen is None or chosen.source != f"models:/{model}":
        chosen = client.create_model_version(
            name,
            f"models:/{model}",
            run.info.run_id,
            tags=tags,
            model_id=model,
            description=f"{best['model']} ({best['variant']}), seed {tags['seed']}",
        )
    for tag, value in tags.items():
        if chosen.tags.get(tag) != value:
            client.set_model_version_tag(name, chosen.version, tag, value)
    if str(registered.aliases.get("champion")) == str(chosen.version):
        return False
    client.set_registered_model_alias(name, "champion", chosen.version)
    return True
