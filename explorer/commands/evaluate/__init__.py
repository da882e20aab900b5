"""`evaluate`: measures attribution where the truth is known, one kind a command.

In come a cache, questions and names of methods; out go tables, printed and kept. What is measured is for
`explorer.evaluation` to say.
"""

from explorer.commands.evaluate.comparing import (
    backdoor,
    calibration,
    classes,
    cost,
    error_tracing,
    fidelity,
    ihvp,
    marks,
    probes,
    tables,
    verdicts,
)
from explorer.commands.evaluate.facts import fact_tracing, invented_facts
from explorer.commands.evaluate.retraining import lds, removal, steps
from explorer.commands.options import Group

evaluate = Group(
    "evaluate",
    {
        "One cache": (probes, calibration, verdicts, marks),
        "Methods beside each other": (
            backdoor,
            error_tracing,
            classes,
            fact_tracing,
            invented_facts,
            ihvp,
            fidelity,
            cost,
        ),
        "Beside more training": (lds, removal, steps),
        "What was kept": (tables,),
    },
    help="Measure attribution where the truth is known.\n\nWhat compares methods first says what it will cost, and "
    "keeps what it found with the cache.",
)
