"""Bulk embedding by many processes, on one machine or a cluster of Ray: `embed_files(..., crew=RayCrew(make))`.

The process that was started keeps the list, the lock and the parts, as it does alone. Workers, one for a GPU or for
some cores, are given files of like length, run the same `Run` on them as a process alone would, and send vectors back.
A worker that dies takes nothing along: what it was given goes to another. A file that kills worker after worker is
found and reported like one that cannot be read.

Why actors and a queue of our own, and not `ray.data.map_batches`: Ray Data retries a block forever or fails the whole
run, and knows no file that is to blame. The loop that does is `RayRun.share_out`.
"""

from __future__ import annotations

import io
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm.auto import tqdm

from unibrivl.embedder.bulk import BATCHES_AT_ONCE, Run
from unibrivl.embedder.embedder import Embedder
from unibrivl.embedder.inputs import Input
from unibrivl.embedder.parts import Found
from unibrivl.utils import require

TASK_FILES = 64  # for a worker at once: more would be lost with it, fewer would wait for the next too often
TASK_BYTES = 20_000_000  # of sound: ten minutes of 16-bit samples at 16 kHz, what `sounds.groups` decodes at once
MOST_DEATHS = 2  # of workers over one task before its files go one by one, and over one file before it is to blame
OBJECT_STORE_BYTES = 200_000_000  # vectors pass through it, and nothing else


@dataclass
class Task:
    """Some inputs of one kind, and how many workers have died over them."""

    inputs: list[Input]
    deaths: int = 0


class Kept:
    """In a worker, in the place of `Parts`: what was found is kept until it is sent."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Found]] = []

    def state(self) -> dict:
        return {}

    def add(self, one: Input, found: Found) -> None:
        self.found.append((one.id, found))

    def flush_if_due(self) -> None:
        """Nothing is written here."""


class Worker:
    """What runs in a process of Ray's: an embedder that is loaded when first needed."""

    def __init__(self, make: Callable[[], Embedder], threads: int):
        self.make, self.threads = make, threads
        self.embedder: Embedder | None = None

    def ready(self) -> str:
        """The fingerprint, which has to be that of whoever asks."""
        if self.embedder is None:
            import torch

            torch.set_num_threads(self.threads)
            self.embedder = self.make()
        return self.embedder.fingerprint

    def embed(
        self, inputs: Sequence[Input], windows: bool, fingerprint: str
    ) -> tuple[list[tuple[str, Found]], list[tuple[str, str]]]:
        """Rows by id, and errors by id, of inputs of one kind."""
        if self.ready() != fingerprint:
            raise ValueError("a worker loaded another model than this process: do all machines see the same files?")
        assert self.embedder is not None
        kept = Kept()
        run = Run(self.embedder, inputs, kept, windows)  # type: ignore[arg-type]
        with tqdm(disable=True) as bar:
            run.embed_kind(inputs[0].kind, inputs, io.StringIO(), bar)
        return kept.found, [(failure.id, failure.error) for failure in run.failures]


class RayCrew:
    """The workers, started when there is something to do; a `with` block ends them.

    Args:
        make: a function of a module that workers can import, or a `functools.partial` of one: it loads the embedder.
        actors (`int`, *optional*): how many workers; by default one for each GPU, or without one for each core.
        gpus (`bool`): each worker has a GPU of its own.
        address (`str`, *optional*): of a cluster of Ray, where files must have the same names on all machines; by
            default what RAY_ADDRESS says, and without it Ray is started on this machine for as long as this lasts.
    """

    def __init__(
        self, make: Callable[[], Embedder], actors: int | None = None, gpus: bool = False, address: str | None = None
    ):
        if actors is not None and actors < 1:
            raise ValueError(f"at least one actor has to work, got {actors}")
        self.ray = require("ray", "ray", "embedding with Ray")
        self.make, self.actors, self.gpus = make, actors, gpus
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self.workers: list[Any] = []
        self._started_ray = False

    def __enter__(self) -> RayCrew:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            self.ray.kill(worker)
        self.workers = []
        if self._started_ray:
            self.ray.shutdown()
            self._started_ray = False

    def start(self, fingerprint: str) -> None:
        """All workers, each with its model; an error in loading is told before anything is shared out."""
        if self.workers:
            return
        if not self.ray.is_initialized():
            self._start_ray()
        there = self.ray.cluster_resources()
        cores, gpus = int(there.get("CPU", 1)), int(there.get("GPU", 0))
        actors = self.actors or (gpus if self.gpus else cores)
        if self.gpus and actors > gpus or actors > cores:
            has = f"{gpus} GPUs" if self.gpus else f"{cores} cores"
            raise ValueError(f"Ray has {has} here, too few for {actors or 'any'} actors: ask for fewer")
        self.threads = max(1, cores // actors)
        self.workers = [self.hire() for _ in range(actors)]
        try:
            found = self.ray.get([worker.ready.remote() for worker in self.workers])
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            raise RuntimeError(f"a worker died while it loaded the model; is there memory for {actors}?") from error
        if set(found) != {fingerprint}:
            raise ValueError("a worker loaded another model than this process: do all machines see the same files?")

    def _start_ray(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"address": self.address, "logging_level": "ERROR", "log_to_driver": False}
        if self.address == "local":
            cores = max(os.cpu_count() or 1, self.actors or 1)
            options |= {"num_cpus": cores, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        self.ray.init(**options)
        self._started_ray = True
        if in_main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the process before what is embedded is kept

    def hire(self) -> Any:
        """A new worker; it is not restarted by Ray, since only we know what it was given."""
        options = {"num_cpus": self.threads, "num_gpus": int(self.gpus), "max_restarts": 0}
        return self.ray.remote(Worker).options(**options).remote(self.make, self.threads)

    def run(self, *of_run: Any) -> RayRun:
        return RayRun(self, *of_run)


class RayRun(Run):
    """A `Run` whose embedding is done by workers."""

    def __init__(self, crew: RayCrew, *of_run: Any):
        super().__init__(*of_run)
        self.crew = crew

    def embed_kind(self, kind: str, wanted: Sequence[Input], errors: Any, bar: Any) -> None:
        if kind == "audio":
            self.share_out(by_length(wanted), errors, bar)
            return
        at_once = BATCHES_AT_ONCE * self.embedder.batch_size
        tasks = [Task(list(wanted[start : start + at_once])) for start in range(0, len(wanted), at_once)]
        self.share_out(tasks, errors, bar)

    def share_out(self, tasks: Sequence[Task], errors: Any, bar: Any) -> None:
        """Each idle worker is given a task; what a dead one was given waits again, for another."""
        if not tasks:
            return
        crew, ray = self.crew, self.crew.ray
        crew.start(self.embedder.fingerprint)
        waiting, idle, running = deque(tasks), list(crew.workers), dict[Any, tuple[Any, Task]]()
        while waiting or running:
            while waiting and idle:
                worker, task = idle.pop(), waiting.popleft()
                # workers may stand in another folder
                inputs = [
                    one if one.path is None else replace(one, path=os.path.abspath(one.path)) for one in task.inputs
                ]
                running[worker.embed.remote(inputs, self.windows, self.embedder.fingerprint)] = worker, task
            for answer in ray.wait(list(running), num_returns=1)[0]:
                worker, task = running.pop(answer)
                try:
                    found, failures = ray.get(answer)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error  # what would have ended a run without Ray, too
                except ray.exceptions.RayError:
                    crew.workers.remove(worker)
                    crew.workers.append(crew.hire())
                    idle.append(crew.workers[-1])
                    waiting += self.once_more(task, errors, bar)
                    continue
                idle.append(worker)
                self.take(task, found, failures, errors, bar)

    def take(self, task: Task, found: Any, failures: Any, errors: Any, bar: Any) -> None:
        by_id = {one.id: one for one in task.inputs}
        for name, rows in found:
            self.parts.add(by_id[name], rows)
            bar.update()
        for name, error in failures:
            self.fail(by_id[name], error, errors, bar)
        self.parts.flush_if_due()

    def once_more(self, task: Task, errors: Any, bar: Any) -> list[Task]:
        """What becomes of a task whose worker died: the same again, its files one by one, or an error of one file."""
        task.deaths += 1
        if task.deaths < MOST_DEATHS:
            return [task]
        if len(task.inputs) > 1:
            return [Task([one]) for one in task.inputs]
        self.fail(task.inputs[0], f"{task.deaths} workers died over it, perhaps for want of memory", errors, bar)
        return []


def by_length(wanted: Sequence[Input]) -> list[Task]:
    """Tasks of files of like size, which is nearly their length, the largest first: none is left for the end alone."""
    tasks: list[Task] = []
    held = 0
    for one in sorted(wanted, key=lambda one: (-one.size_bytes, one.id)):
        if not tasks or len(tasks[-1].inputs) == TASK_FILES or held + one.size_bytes > TASK_BYTES:
            tasks.append(Task([]))
            held = 0
        tasks[-1].inputs.append(one)
        held += one.size_bytes
    return tasks
