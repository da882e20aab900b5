"""Work that is shared by threads: the one worker and its queue, work in steps, a bounded memory.

In come generators that yield between bounded steps; out comes their work done one
step at a time, the most urgent first. It knows nothing of models or of Streamlit.
"""

from explorer.concurrency.queue import Place
from explorer.concurrency.recent import Recent
from explorer.concurrency.stepwise import Pause, cached, stepwise
from explorer.concurrency.task import Steps, Task, Urgency
from explorer.concurrency.worker import Worker

__all__ = [
    "Pause",
    "Place",
    "Recent",
    "Steps",
    "Task",
    "Urgency",
    "Worker",
    "cached",
    "stepwise",
]
