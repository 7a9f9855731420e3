"""From raw rows to probabilities, by a package: everything that a trained model needs, as plain files.

    from pipeline.scoring import load

    model = load("folder")
    model.predict(frame)  # a DataFrame of raw columns -> a DataFrame: probability, raw_probability

Needs neither DVC, MLflow nor Optuna.
"""

from pipeline.scoring.model import Model, load

__all__ = ["Model", "load"]
