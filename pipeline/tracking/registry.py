"""MLflow's model registry: one registered model per dataset, its champion under the alias `champion`.

On the same encoded rows the alias follows the report, which has compared all models on them. Once the log
has grown (or is encoded in another way), the champion of the new report is a challenger: the alias moves only
if it is better on rows that are new to the champion, or if there is nothing to compare (see
`scoring/challenge.py`). The tag `reason` of a version, and its description, say why the alias came or not.

A server is shared: there the alias moves to the champion of another checkout only if that is better on the
same encoded rows, by the validation metric that its report goes by. The tag `checkout` of a version says
whose it is. (On different rows the alias stays until its own checkout moves it, or somebody takes it away on
the page.)
"""

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.common.errors import PipelineError
from pipeline.config.metric import NAMES, sign
from pipeline.evaluate import results
from pipeline.evaluate.verdict import Verdict
from pipeline.tracking.page import of_model, of_version
from pipeline.tracking.progress import MODEL
from pipeline.tracking.record import Block
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"
AGAINST, WON, REASON = "challenged", "won", "reason"  # tags of a version: by a test against which source


def registered_name(report: Block) -> str:
    """Return the registered name of a dataset's champion."""
    return f"ctr-{report['dataset']}"


@dataclass(frozen=True)
class Candidate:
    """The champion of a report, as a version in the registry.

    Attributes:
        run: the MLflow run that has the model.
        tags: of the version: what it is, whose it is, the metrics of its own seed, and `_mean` of all seeds.
    """

    store: Store
    report: Block
    run: "Run"
    tags: dict[str, str]

    @classmethod
    def of(cls, store: Store, experiment: str, report: Block, run: "Run") -> "Candidate":
        """Describe the champion of a report."""
        best, result, seed = report["champion"], results.leader(report), run.data.tags["pipeline.seed"]
        child = store.children(experiment, run.info.run_id).get(f"seed-{seed}")
        own = {"valid_auc": child.data.metrics.get("best/valid_auc") if child else None}
        mean = {f"valid_{metric}_mean": result[f"valid_{metric}"] for metric in {"auc", best["metric"]}}
        of_seed: Block = next((each for each in result["seeds"] if str(each["seed"]) == seed), {})
        own |= {f"test_{name}": of_seed.get(name) for name in result["mean"]}
        mean |= {f"test_{name}_mean": value for name, value in result["mean"].items()}
        named = {
            "model": best["model"],
            "variant": best["variant"],
            "seed": seed,
            "key": best["key"],
            "data": next((each.dataset.digest for each in getattr(run.inputs, "dataset_inputs", [])), ""),
            "checkout": f"{socket.gethostname()}:{store.root}",
        }
        figures = {name: f"{value:.6f}" for name, value in {**own, **mean}.items() if value is not None}
        return cls(store, report, run, {**named, **figures})

    @property
    def name(self) -> str:
        """The registered model."""
        return registered_name(self.report)

    @property
    def model(self) -> str:
        """The source of the version."""
        return f"models:/{self.run.data.tags[MODEL]}"

    @property
    def metric(self) -> str:
        """By which the report chose it."""
        return str(self.report["champion"]["metric"])

    @property
    def by(self) -> str:
        """What people call that metric."""
        return NAMES[self.metric]

    @property
    def mean(self) -> str:
        """The tag with its mean over the seeds, on validation rows."""
        return f"valid_{self.metric}_mean"

    @property
    def own(self) -> bool:
        """Whether the alias is this checkout's, or nobody's."""
        now = self._leader()
        return self.store.local or now is None or now.tags.get("checkout") == self.tags["checkout"]

    def verdict(self) -> Verdict:
        """Whether the alias is to be on this model, and why."""
        now = self._leader()
        if now is None:
            return Verdict(leads=True, reason="there was no champion before it")
        if now.source == self.model:
            return Verdict(leads=True, reason=now.tags.get(REASON, ""))
        if not self.store.has_model(str(now.source).removeprefix("models:/")):
            return Verdict(leads=True, reason="the champion before it was deleted")
        if now.tags.get("data") == self.tags["data"]:
            mine, other = self.tags[self.mean], now.tags.get(self.mean)
            if other is None:
                return Verdict(self.own, f"version {now.version} on the same rows has no valid {self.by}")
            reason = f"valid {self.by} {mine} against {other} of version {now.version} on the same rows"
            return Verdict(self.own or sign(self.metric) * (float(mine) - float(other)) > 0, reason)
        if not self.own:
            return Verdict(leads=False, reason="the champion is another checkout's, of other rows")
        return self._challenge(now)

    def _challenge(self, now: "ModelVersion") -> Verdict:
        """Compare it with the champion on new rows, unless that was done before."""
        from pipeline.scoring.challenge import judge  # with torch
        from pipeline.scoring.package import Package
        from pipeline.tracking.models import package_of

        done = next((each for each in self._versions() if each.source == self.model), None)
        if done is not None and done.tags.get(AGAINST) == now.source:
            return Verdict(done.tags[WON] == "true", done.tags[REASON])
        try:
            champion = Package.read(package_of(self.store, str(now.source)))
        except PipelineError as error:
            return Verdict(leads=True, reason=f"the champion before it cannot be read: {error}")
        found = judge(self.store.root, champion, Package.read(package_of(self.store, self.model)))
        if found.final:
            self.tags.update({AGAINST: str(now.source), WON: str(found.leads).lower()})
        return Verdict(found.leads, f"against version {now.version}: {found.reason}", found.final)

    def register(self, *, leads: bool, reason: str, link: str) -> bool:
        """Make it a version, with the alias `champion` if it leads; return whether anything changed.

        Args:
            reason: why it does, or does not.
            link: to its report, for the pages of the model and of the version.
        """
        client = self.store.client
        tags = {**self.tags, **({REASON: reason} if reason else {})}
        create(client, self.name)
        chosen = next((each for each in self._versions() if each.source == self.model), None)
        new = chosen is None
        if chosen is None:
            chosen = client.create_model_version(
                self.name,
                self.model,
                self.run.info.run_id,
                tags=tags,
                model_id=self.run.data.tags[MODEL],
            )
            chosen = self._first_of(chosen)
        # what the page of the logged model shows as its versions
        entry = json.dumps([{"name": self.name, "version": int(chosen.version)}])
        client.set_logged_model_tags(self.run.data.tags[MODEL], {"mlflow.modelVersions": entry})
        for tag, value in tags.items():
            if chosen.tags.get(tag) != value and (leads or tag != "checkout"):
                client.set_model_version_tag(self.name, chosen.version, tag, value)
        said = of_version(self.report, results.leader(self.report), tags, link)
        describe(client, chosen, said)
        said = of_model(self.name, self.report, link)
        if leads and client.get_registered_model(self.name).description != said:
            client.update_registered_model(self.name, said)
        now = self._leader()
        if not leads:
            if new and now is not None:
                theirs = now.tags.get(self.mean, "unknown")
                print(
                    f"{self.name}: `{ALIAS}` stays at version {now.version}, of {now.tags.get('checkout')} "
                    f"(valid {self.by} {theirs}); version {chosen.version} is this checkout's "
                    f"({self.tags[self.mean]}): {reason}"
                )
            return new
        if now is not None and str(now.version) == str(chosen.version):
            return new
        client.set_registered_model_alias(self.name, ALIAS, chosen.version)
        return True

    def _first_of(self, chosen: "ModelVersion") -> "ModelVersion":
        """Return the only version of the model; another checkout may have made one in the same moment."""
        same = (each for each in self._versions() if each.source == self.model)
        first = min(same, key=lambda each: int(each.version))
        if int(first.version) < int(chosen.version):
            self.store.client.delete_model_version(self.name, chosen.version)
        return first

    def _versions(self) -> "list[ModelVersion]":
        return list(self.store.client.search_model_versions(f"name = '{self.name}'"))

    def _leader(self) -> "ModelVersion | None":
        """Return the version that has the alias now."""
        return leader(self.store.client, self.name)


def create(client: "MlflowClient", name: str) -> None:
    """Make a registered model, unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def describe(client: "MlflowClient", version: "ModelVersion", text: str) -> None:
    """Give a version a description, if it has another one."""
    if version.description != text:
        client.update_model_version(version.name, version.version, text)


def leader(client: "MlflowClient", name: str) -> "ModelVersion | None":
    """Return the version of a registered model that has the alias now."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
