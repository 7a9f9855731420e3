"""The page of a registered model in MLflow: what it is, and how to use it."""


def page(name: str, dataset: str) -> str:
    """Return the description of a dataset's registered model, in Markdown."""
    return f"""Click probability on {dataset}; the alias `champion` is the best model on validation rows.

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
