"""`commlens dashboard`: runs in a browser."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from commlens.cli.places import anywhere
from commlens.cli.workers import ClusterAt, Scratch, Workers, engine


def dashboard(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Folders of runs, folders that hold runs, or files of other profilers. Default: ./commlens-runs.",
            show_default=False,
            parser=anywhere,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8050,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a token on this machine too, as on one that others log in to.")
    ] = False,
    workers: Workers = None,
    cluster: ClusterAt = None,
    scratch: Scratch = None,
) -> None:
    """Show runs in a browser: verdict, timeline, ranks, bandwidth, overlap, what-if, comparison.

    A run that is still being recorded refreshes by itself. Other machines reach it through
    `ssh -L 8050:localhost:8050 HOST`, or with --host and the token that is printed.

    Example: commlens dashboard commlens-runs --port 8050
    """
    from commlens.cli.runs import newest
    from commlens.errors import CommlensError, UsageError

    try:
        from commlens.ui.dashboard.app import create_app
        from commlens.ui.dashboard.server import guard, is_loopback, make_server, new_token, serve
    except ImportError as error:
        raise UsageError(f"the dashboard needs {error.name}; next: pip install 'commlens[ui]'") from error
    from commlens.ui.dashboard.runs import Runs

    local = is_loopback(host)
    secret = new_token() if token or not local else None
    with engine(workers, cluster, scratch) as chosen:
        store = Runs(runs or [newest()], chosen)
        app = create_app(store)
        guard(app.server, secret, local_only=local)
        server = make_server(app, host, port)
        try:  # so that a run that cannot be read is said here, and the first page is there at once
            store.view(store.keys[0])
        except CommlensError as error:
            if len(store.keys) == 1:
                raise
            print(f"commlens: {error}; the other runs are shown", file=sys.stderr)  # noqa: T201
        stopped = threading.Event()
        threading.Thread(target=store.follow, args=(stopped,), daemon=True, name="follow").start()
        typer.echo(_address(host, server.port, secret))
        print("commlens: Ctrl-C ends it", file=sys.stderr)  # noqa: T201
        serve(server)
        stopped.set()


def _address(host: str, port: int, secret: str | None) -> str:
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/" + (f"?token={secret}" if secret else "")
