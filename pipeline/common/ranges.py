"""The ranges that options are annotated with.

`heads: Count = 2` in a signature is the only place that names the range of `heads`: pipeline/config
checks params.yaml against it, list elements included. Infinity and NaN are outside of every range.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]  # 0 switches it off
TwoOrMore = Annotated[int, Ge(2)]
Seed = Annotated[int, Ge(0), Le(2**31 - 1)]  # what numpy, torch, optuna and a column of int32 all accept
Probability = Annotated[float, Ge(0), Le(0.99)]  # of dropout: something has to be left
Share = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
