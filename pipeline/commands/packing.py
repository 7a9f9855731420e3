"""The package that the options of a command name: from the files of the stages, or as MLflow has it."""

import sys
from pathlib import Path

from pipeline.common.errors import PipelineError
from pipeline.scoring import pack
from pipeline.scoring.package import BLEND, Package


def packed(root: Path, dataset: str, model: str | None, variant: str | None, *, refit: bool) -> Package:
    """Return the package of a trained model.

    Args:
        root: the project's folder.
        model: None for the champion of the dataset's report, whose variant it is unless another is given.
        variant: of the model; None for the tuned one, of a blend `equal`.
        refit: see `pack.pack`.

    Raises:
        PipelineError: a stage has to run first, or its files do not fit each other.
    """
    if model is None:
        model, best = pack.champion(root, dataset)
        variant = variant or best
    return pack.pack(root, dataset, model, variant or ("equal" if model == BLEND else "tuned"), refit=refit)


def packed_or_registered(
    root: Path, dataset: str, model: str | None, variant: str | None, *, refit: bool
) -> Package:
    """Do what `packed` does; where files are missing, take the same model from MLflow's registry, and say so.

    DVC removes the results of a stage before it runs, so that after a failed one they are gone.

    Raises:
        PipelineError: as `packed`, and the registry does not have it either.
    """
    try:
        return packed(root, dataset, model, variant, refit=refit)
    except PipelineError as error:
        name = f"ctr-{dataset}@champion"
        package = None if refit or model == BLEND else _registered(root, name)
        asked = {"model": model, "variant": variant if model is None else variant or "tuned"}
        if package is None or any(
            value is not None and package.trained_on[key] != value for key, value in asked.items()
        ):
            raise
        which = "{model} ({variant})".format(**package.trained_on)
        print(f"warning: {error}\nscored with {name} of MLflow instead: {which}", file=sys.stderr)
        return package


def _registered(root: Path, name: str) -> Package | None:
    """Return the package of a registered model; None if there is none."""
    from pipeline.tracking.models import registered_package
    from pipeline.tracking.store import Store

    store = Store.of(root)
    if store.local and not store.database.exists():
        return None
    try:
        return Package.read(registered_package(root, name))
    except PipelineError:
        return None
