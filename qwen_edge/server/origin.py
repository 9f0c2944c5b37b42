"""Checks the host that a request names and the web page that sends it, and writes the CORS headers.

Without keys, every program that reaches the port may use the server, and so may every page in a browser on this
machine. Therefore the request's Host must be a name of this machine: a page that lets its own domain point to this
machine (DNS rebinding) sends that domain as Host. And the Origin, if there is one, must be of this machine or listed in
`server.origins`. With keys, only the key decides. In both cases only listed pages can read the answers (CORS).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from aiohttp import web

from qwen_edge.config.schema import ANY_ORIGIN, ServerConfig, plain_origin
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]+)(?::[0-9]{0,5})?")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^/?#]+)")
_NAMES = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+(?:\s*,\s*[0-9A-Za-z!#$%&'*+.^_`|~-]+)*")
_METHODS = "GET, POST, DELETE, OPTIONS"
_HEADERS = "Authorization, Content-Type, X-API-Key"  # allowed if a preflight request names no headers
_EXPOSED = "Retry-After, Allow, WWW-Authenticate, X-Unenforced, request-id"
_PREFLIGHT_SECONDS = "7200"  # the longest time for which browsers cache the answer to a preflight request


def refuse_foreign_host(request: web.Request, server: ServerConfig) -> None:
    """For a server without keys: raises RequestError if the request names no host, or a host that is not this
    machine."""
    named = request.headers.getall("Host", [])
    # a browser sends exactly one Host header; the request line may name another host
    for host in [*named, request.host] if len(named) == 1 else [", ".join(named) or "no host"]:
        if not _is_ours(host, server.host):
            message = (
                f"Requests for {printable(host or 'no host')} are refused: without API keys this server answers to the "
                "names of its own machine only. Use http://127.0.0.1 or http://localhost with its port (behind a "
                "proxy: let it send 'Host: localhost'), or set server.api_keys_file."
            )
            raise RequestError(message, "permission", code="foreign_host")


def refuse_foreign_page(request: web.Request, server: ServerConfig) -> None:
    """For a server without keys: raises RequestError if a page of another machine sent the request."""
    for origin in request.headers.getall("Origin", []):
        if not is_listed(origin, server.origins) and not _is_local_page(origin):
            raise _foreign_page(origin)


def preflight(request: web.Request, server: ServerConfig) -> web.Response | None:
    """The answer to a CORS preflight request, which browsers send without a key; None for any other request. Raises
    RequestError if the page may not use the server."""
    origin = request.headers.get("Origin")
    if request.method != "OPTIONS" or origin is None:
        return None
    if not is_listed(origin, server.origins):
        raise _foreign_page(origin)
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    headers = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": wanted if _NAMES.fullmatch(wanted) else _HEADERS,
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)


def let_page_read(request: web.Request, response: web.StreamResponse, origins: Sequence[str]) -> None:
    """Add the CORS headers that let a page of a listed origin read the response. Also for errors and streams."""
    if not origins:
        return
    vary = response.headers.get("Vary", "")
    if "Origin" not in vary:
        response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
    origin = request.headers.get("Origin")
    if origin is not None and is_listed(origin, origins):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED


def is_listed(origin: str, origins: Sequence[str]) -> bool:
    """Whether the settings list this origin."""
    if ANY_ORIGIN in origins:
        return origin.isascii() and origin.isprintable()  # it is sent back in a header
    return plain_origin(origin) in map(plain_origin, origins)


def _foreign_page(origin: str) -> RequestError:
    remedy = "To let these pages in, list their origin in server.origins."
    if not _ORIGIN.fullmatch(origin):  # such as null, which any page can send
        remedy = (
            "To let pages in, list an origin of the form https://host:port in server.origins: only such can be listed."
        )
    message = f"Requests from web pages of {printable(origin)} are refused. {remedy}"
    return RequestError(message, "permission", code="foreign_origin")


def _is_local_page(origin: str) -> bool:
    """Whether the page is of this machine. Browsers send `null` if they hide a page's origin."""
    parts = _ORIGIN.fullmatch(origin)
    return parts is not None and _is_loopback(_host_in(parts["authority"]))


def _is_ours(authority: str, bound: str) -> bool:
    """Whether a Host header names this machine, or the address that the server is bound to."""
    host = _host_in(authority)
    return _is_loopback(host) or (bool(host) and host == bound.lower())


def _host_in(authority: str) -> str:
    """The host of `host:port`, in lower case; empty if the text has another form."""
    parts = _AUTHORITY.fullmatch(authority)
    return parts["host"].strip("[]").lower().removesuffix(".") if parts else ""


def _is_loopback(host: str) -> bool:
    """Whether the name or address is a loopback one (RFC 6761 for the names)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
