"""How much each axis of a search mattered."""

from collections.abc import Sequence

import optuna
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from pipeline.config.metric import sign
from pipeline.config.space import Tune


def importances(trials: Sequence[FrozenTrial], settings: Tune) -> dict[str, dict[str, float]]:
    """Compute the importance of each axis by PED-ANOVA and by f-ANOVA.

    Empty with fewer than three complete trials, or if all have the same value.
    """
    study = optuna.create_study(direction="maximize" if sign(settings.metric) > 0 else "minimize")
    study.add_trials(trials)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < 3 or len({trial.value for trial in complete}) < 2 or not complete[0].params:
        return {}
    methods = {
        "ped_anova": PedAnovaImportanceEvaluator(),
        "fanova": FanovaImportanceEvaluator(seed=settings.seed),
    }
    return {
        method: {
            # rounded: the last bits depend on what the process computed before
            axis: round(share, 9)
            for axis, share in sorted(
                optuna.importance.get_param_importances(study, evaluator=evaluator).items()
            )
        }
        for method, evaluator in methods.items()
    }
