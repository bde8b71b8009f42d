"""The promises a method makes, as tests that a plugin inherits.

    class TestHoulsby(MethodConformance):
        method = "houlsby"
        options = {"size": 8}

pytest collects the rest. Every test runs on each of `bases`; one is skipped only for what the
method's record does or does not declare, which the reason names.
"""

from __future__ import annotations

from adapterhub.testing.attaching import Attaching
from adapterhub.testing.declaring import Declaring
from adapterhub.testing.describing import Describing
from adapterhub.testing.refusing import Refusing
from adapterhub.testing.repeating import Repeating
from adapterhub.testing.running import Running
from adapterhub.testing.together import Together
from adapterhub.testing.training import Training


# Their tests run from the last to the first.
class MethodConformance(
    Refusing, Running, Repeating, Describing, Together, Training, Attaching, Declaring
):
    """Set `method`; `options`, `bases`, `seeded` and `beside` as in `adapterhub.testing.ground`."""
