"""The dashboard as a web server: who may ask, and what it answers when something goes wrong."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import flask
from dash import Dash

from commlens.errors import CommlensError
from commlens.ui.dashboard.address import read_query, write_query

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

_COOKIE: Final = "commlens-token"  # and the port: browsers keep cookies by host, which several dashboards share
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_HEADERS: Final = {
    # Dash needs inline scripts; nothing is loaded from, or sent to, any other place.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host in _LOCAL:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A secret nobody guesses."""
    return secrets.token_urlsafe(24)


def guard(server: flask.Flask, token: str | None, local_only: bool) -> None:
    """Answer only who may ask, and never with a traceback.

    Args:
        server: of the app.
        token: what a browser must bring; None: nothing.
        local_only: refuse names that are not this machine's, so that no other site can make a browser ask
            (DNS rebinding).
    """

    @server.before_request
    def admit() -> flask.Response | None:
        name, port = _asked()
        if local_only and not is_loopback(name):
            return _said(403, "this dashboard answers on localhost only; start it with --host to open it to others")
        if token is None or hmac.compare_digest(_brought(f"{_COOKIE}-{port}").encode(), token.encode()):
            return None
        given = flask.request.args.get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            return _said(403, "the token is missing or wrong; open the address that commlens dashboard printed")
        kept = {
            name: value for name, value in read_query(flask.request.query_string.decode()).items() if name != "token"
        }
        answer = flask.redirect(f"/{flask.request.path.lstrip('/')}{write_query(kept)}")
        answer.set_cookie(f"{_COOKIE}-{port}", token, httponly=True, samesite="Strict")
        return answer  # type: ignore[return-value]

    @server.after_request
    def protect(answer: flask.Response) -> flask.Response:
        answer.headers.update(_HEADERS)
        return answer

    @server.errorhandler(Exception)
    def failed(error: Exception) -> flask.Response:
        code = getattr(error, "code", None)
        if isinstance(code, int) and code < 500:
            return _said(code, "there is nothing at this address")
        if not isinstance(error, CommlensError):
            logging.getLogger("commlens").error("internal error: %s: %s", type(error).__name__, error)
        return _said(500, str(error) if isinstance(error, CommlensError) else "internal error, see the terminal")


def _asked() -> tuple[str, int]:
    """The name and port that the browser asked; ("", 0) where they make no sense."""
    try:
        asked = urlsplit(f"//{flask.request.host}")
        return asked.hostname or "", asked.port or 80
    except ValueError:
        return "", 0


def _brought(name: str) -> str:
    return flask.request.cookies.get(name, "")


def _said(code: int, text: str) -> flask.Response:
    return flask.Response(f"commlens: {text}\n", status=code, mimetype="text/plain")


def make_server(app: Dash, host: str, port: int) -> BaseWSGIServer:
    """A server that listens; port 0 takes a free one.

    Raises:
        CommlensError: it cannot listen there.
    """
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        """Says nothing of requests."""

        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: object) -> None:
            pass

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Bound here, because werkzeug prints and exits where it cannot.
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommlensError(f"cannot listen on {host}:{port}: {reason}; next: another --port, or --port 0") from error
    with listening:
        return make_server(host, port, app.server, threaded=True, request_handler=Quiet, fd=listening.fileno())


def serve(server: BaseWSGIServer) -> None:
    """Serve until interrupted."""
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
