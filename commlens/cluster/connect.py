"""Getting workers: a local cluster, or one that is there."""

from __future__ import annotations

import gc
import logging
import platform
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

from commlens import __version__
from commlens.cluster import store
from commlens.cluster.engine import Cluster, Progress
from commlens.cluster.tasks import sees
from commlens.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

_PATIENCE: Final = "10s"
_ENVIRONMENT: Final = {
    "DASK_LOGGING__DISTRIBUTED": "critical",  # what goes wrong is said once, by the client
    # By Dask's own a worker gives the memory of every array back and asks for it again: a fifth of all its time.
    "MALLOC_MMAP_THRESHOLD_": 32 << 20,
    "MALLOC_TRIM_THRESHOLD_": 128 << 20,
}
_VERSION: Final = "__import__('commlens').__version__"  # evaluated there, so that nothing of ours need be unpickled
INSTALL: Final = "pip install 'commlens[cluster]'"


@contextmanager
def connected(
    workers: int | None, address: str | None, scratch: Path | None = None, progress: Progress | None = None
) -> Iterator[Cluster]:
    """An engine of `workers` local processes, or of the cluster at an address.

    Args:
        workers: how many to start on this machine; None where `address` says where they are.
        address: of a scheduler, such as "tcp://node1:8786".
        scratch: a folder that this process and the workers share; None: in the machine's temporary folder.
        progress: see `Cluster`.

    Raises:
        ClusterError: no scheduler answers, it has no workers, their versions differ, or they do not see the folder.
    """
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise ClusterError(f"analysis on a cluster needs Dask, which is not installed: {INSTALL}") from None
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        folder = stack.enter_context(_scratch(scratch))
        client = stack.enter_context(_local(workers, folder) if address is None else _existing(address))
        count = _checked(client, address, folder)
        stopped = Event()
        stack.callback(stopped.set)
        Thread(target=store.keep_pages_few, args=(stopped,), daemon=True, name="pages").start()
        yield Cluster(client, folder, count, progress)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own logging would say with tracebacks what an error says in one line."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _scratch(parent: Path | None) -> Iterator[Path]:
    """A new folder in the one given, which goes with us."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="commlens-scratch-", dir=parent)).resolve()
    except OSError as error:
        raise ClusterError(
            f"cannot make a scratch folder in {parent}: {error.strerror}; name another with --scratch"
        ) from None
    try:
        yield folder
    finally:
        store.forget(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _local(workers: int | None, folder: Path) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    before = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    settings = {
        "distributed.worker.daemon": True,
        "distributed.nanny.pre-spawn-environ": {**before, **_ENVIRONMENT},
        "temporary-directory": str(folder),
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        with _interrupts_held(), _starting(workers or 1):
            # Mapped files count as a worker's memory, but the kernel takes them back: no limit of Dask's own.
            cluster = LocalCluster(
                n_workers=workers or 1,
                threads_per_worker=1,
                dashboard_address=":0",
                memory_limit=0,
                local_directory=str(folder),
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster, set_as_default=False))
        yield client


@contextmanager
def _starting(workers: int) -> Iterator[None]:
    """Dask says of anything that keeps a process from starting that it failed to start."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        why = error.__cause__ or error
        raise ClusterError(f"cannot start {workers} worker processes: {why}; give fewer --workers") from error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal: those begun in here leave it to this one, which ends them."""
    resource_tracker.ensure_running()  # which lets interrupts through again in the thread that begins it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _existing(address: str) -> Iterator[Client]:
    from distributed import Client

    why = None
    try:
        if not address:
            raise ValueError("it has no address")
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        why = "nobody answers" if isinstance(error, OSError) else str(error)
    if why is not None:
        gc.collect()  # A half-made client closes when it is collected: amid the making of another both would hang.
        raise ClusterError(
            f"no Dask scheduler at {address}: {why};"
            " check the address that `dask scheduler` printed, or use --workers N"
        )
    with client:
        yield client


def _checked(client: Client, address: str | None, folder: Path) -> int:
    """Number of workers, all of which can do our work."""
    where = f"the cluster at {address}" if address is not None else "the local cluster"
    versions: dict[str, Any] = client.get_versions(check=False)["workers"]  # type: ignore[index]
    if not versions:
        raise ClusterError(f"{where} has no workers; start some with: dask worker {address}")
    python = {each["host"]["python"].split(".final")[0] for each in versions.values()}
    _same(
        "Python",
        {".".join(each.split(".")[:2]) for each in python},
        ".".join(platform.python_version_tuple()[:2]),
        where,
    )
    _same("commlens", set(_ours(client, where).values()), __version__, where)
    token = folder / "seen"
    token.write_text("commlens")
    blind = [worker for worker, seen in client.run(sees, str(token)).items() if not seen]
    if blind:
        raise ClusterError(
            f"{len(blind)} of {len(versions)} workers of {where} do not see {folder}:"
            " give --scratch a folder that this process and the workers share"
        )
    return len(versions)


def _ours(client: Client, where: str) -> dict[str, str]:
    try:
        found: dict[str, str] = client.run(eval, _VERSION)
    except ImportError:
        raise ClusterError(f"a worker of {where} has no commlens; install it there: {INSTALL}") from None
    return found


def _same(what: str, theirs: set[str], own: str, where: str) -> None:
    if theirs != {own}:
        told = ", ".join(sorted(theirs))
        raise ClusterError(f"{where} runs {what} {told}, this process {own}: install the same on both sides")
