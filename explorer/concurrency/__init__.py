"""TODO."""

from explorer.concurrency.recent import Recent
from explorer.concurrency.stepwise import Pause, cached, stepwise
from explorer.concurrency.worker import Steps, Task, Urgency, Worker

__all__ = [
    "Pause",
    "Recent",
    "Steps",
    "Task",
    "Urgency",
    "Worker",
    "cached",
    "stepwise",
]
