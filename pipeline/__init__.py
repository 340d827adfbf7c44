"""The data flow: inventory, plan, fetch and decode, infer, write, close, publish.

Python programs find here what they call; a name is imported when it is first used.
"""

import importlib
import typing

__version__ = "0.1.0"

__all__ = [
    "ComputeSpec",
    "Decode",
    "FinetuneSpec",
    "InputSpec",
    "JobError",
    "ModelSpec",
    "OutputSpec",
    "PolicySpec",
    "Predict",
    "RelabelSpec",
    "Result",
    "RunError",
    "RunSpec",
    "UsageError",
    "classify",
    "corrections",
    "embed",
    "finetune",
    "nightly",
    "relabel",
    "run",
]

if typing.TYPE_CHECKING:
    from pipeline.contract.errors import JobError, RunError, UsageError
    from pipeline.contract.spec import (
        ComputeSpec,
        FinetuneSpec,
        InputSpec,
        ModelSpec,
        OutputSpec,
        PolicySpec,
        RelabelSpec,
        RunSpec,
    )
    from pipeline.runs.python.decode import Decode
    from pipeline.runs.python.jobs import (
        classify,
        corrections,
        embed,
        finetune,
        nightly,
        relabel,
        run,
    )
    from pipeline.runs.python.predict import Predict
    from pipeline.runs.python.result import Result
else:
    _MODULES = {
        "contract.errors": {"JobError", "RunError", "UsageError"},
        "runs.python.jobs": {
            *("classify", "corrections", "embed", "finetune", "nightly", "relabel", "run"),
        },
        "runs.python.decode": {"Decode"},
        "runs.python.predict": {"Predict"},
        "runs.python.result": {"Result"},
    }
    _SPECS = "contract.spec"

    def __getattr__(name: str) -> typing.Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = next((one for one, names in _MODULES.items() if name in names), _SPECS)
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
