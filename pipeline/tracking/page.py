"""The pages of a registered model in MLflow and of its versions: what each is, and how to use it."""

from collections.abc import Mapping
from typing import Any

from pipeline.common.text import with_interval
from pipeline.config.metric import NAMES
from pipeline.tracking import record

Block = dict[str, Any]
# the page has no words that explain ECE
SHOWN = {key: NAMES[key] for key in ("auc", "logloss", "gauc")} | {"ece": "calibration error"}


def of_model(name: str, report: Block, link: str) -> str:
    """Return the description of a dataset's registered model, in Markdown.

    Args:
        link: to the report.
    """
    return f"""Click probability on {report["dataset"]}; the alias `champion` is the best model on
validation rows.

{record.headline(report)}. {link}

It takes raw rows: the columns of its signature, of any type; optional are those in which training saw rows
without a value. It returns `probability`, calibrated on validation rows, and `raw_probability`.

```python
import mlflow

model = mlflow.pyfunc.load_model("models:/{name}@champion")
scores = model.predict(model.input_example)  # or your rows, a DataFrame
```

```sh
mlflow models serve --model-uri models:/{name}@champion --env-manager local --port 5001
python -m pipeline predict --registered {name}@champion rows.csv -o scores.parquet
```
"""


def of_blend(report: Block, blend: Block, name: str, link: str) -> str:
    """Return the description of a blend's version: its members, its figures on the test rows, how to use it.

    Args:
        name: of the registered model.
        link: to the report.
    """
    members = ", ".join(
        f"{part['weight']} x {part['model']} ({part['variant']})" for part in blend["members"]
    )
    gap = with_interval(blend["against_champion"])
    return f"""**{blend["kind"]}** blend on {report["dataset"]}: the mean of the logits of {members},
over all seeds.

Test AUC {blend["auc"]:.4f}, logloss {blend["logloss"]:.4f}; minus the champion's AUC {gap}. It costs
{blend["trainings"]} trainings and {blend["weights"]:,} weights. {link}

```python
import mlflow

model = mlflow.pyfunc.load_model("models:/{name}@champion")
scores = model.predict(model.input_example)  # or your rows, a DataFrame
```
"""


def of_version(report: Block, result: Block, tags: Mapping[str, str], link: str) -> str:
    """Return the description of a version: its figures on the test rows, its size, how it calibrates.

    Args:
        result: of the version's model in the report.
        tags: of the version.
    """
    seed, count = tags["seed"], len(result["seeds"])
    lines = [
        f"**{result['model']} ({result['variant']})** on {report['dataset']}, seed {seed}: best of {count}.",
        "",
        f"| on {report['rows']:,} test rows&emsp; | this seed&emsp; | mean of {count} seeds&emsp; |",
        "|---|---|---|",
    ]
    own: Block = next((each for each in result["seeds"] if str(each["seed"]) == seed), {})
    for key, name in SHOWN.items():
        if result["mean"].get(key) is not None and own.get(key) is not None:
            spread = f" ± {result['std'][key]:.4f}" if result.get("std") else ""
            lines.append(f"| {name}&emsp; | {own[key]:.4f}&emsp; | {result['mean'][key]:.4f}{spread}&emsp; |")
    facts = [f"Valid {record.chosen_by(report, result)} (mean), by which models are compared."]
    if result.get("weights"):
        facts.append(f"{result['weights']:,} weights.")
    if tags.get("reason"):
        facts.append(f"Why it leads, or does not: {tags['reason']}.")
    if result.get("warning"):
        facts.append(f"Beware: {result['warning']}.")
    return "\n".join([*lines, "", " ".join([*facts, link])])
