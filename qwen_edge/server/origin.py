"""From where a request may come: the host it names, the web page that sends it, and what a browser lets a page do.

Without keys, whatever reaches the port is let in, and a browser on this machine reaches it for every page it shows. So
the name that the request was sent to must be this machine's own: a page that lets its own name point here (DNS
rebinding) sends that name. And the page that sent it, if one did, must be of this machine, or listed in
`server.origins`. With keys, the key decides. In both cases only the pages listed there can read the answers (CORS).
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
_HEADERS = "Authorization, Content-Type, X-API-Key"  # for a page that does not say which it will send
_EXPOSED = "Retry-After, Allow, WWW-Authenticate"
_PREFLIGHT_SECONDS = "7200"  # browsers keep an answer no longer


def refuse_foreign_host(request: web.Request, server: ServerConfig) -> None:
    """Where no key protects the server: refuse what was sent to a name that is not this machine's, or to none. Raises
    RequestError."""
    named = request.headers.getall("Host", [])
    # a browser sends exactly one; a request line may name another
    for host in [*named, request.host] if len(named) == 1 else [", ".join(named) or "no host"]:
        if not _is_ours(host, server.host):
            message = (
                f"Requests for {printable(host or 'no host')} are refused: without API keys this server answers to the "
                "names of its own machine only. Use http://127.0.0.1 or http://localhost with its port (behind a "
                "proxy: let it send 'Host: localhost'), or set server.api_keys_file."
            )
            raise RequestError(message, "permission", code="foreign_host")


def refuse_foreign_page(request: web.Request, server: ServerConfig) -> None:
    """Where no key protects the server: refuse what a page of elsewhere has sent. Raises RequestError."""
    for origin in request.headers.getall("Origin", []):
        if not is_listed(origin, server.origins) and not _is_local_page(origin):
            raise _foreign_page(origin)


def preflight(request: web.Request, server: ServerConfig) -> web.Response | None:
    """The answer to a browser that asks whether a page may send its request; None if this is no such question. It is
    asked without a key. Raises RequestError for pages that may not."""
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
    """Put the headers on a response, an error or a stream as well, that let a page of a listed origin read it."""
    if not origins:
        return
    if "Vary" not in response.headers:
        response.headers["Vary"] = "Origin"
    origin = request.headers.get("Origin")
    if origin is not None and is_listed(origin, origins):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED


def is_listed(origin: str, origins: Sequence[str]) -> bool:
    """Whether the settings let pages of this origin in."""
    if ANY_ORIGIN in origins:
        return origin.isascii() and origin.isprintable()  # it goes back in a header
    return plain_origin(origin) in map(plain_origin, origins)


def _foreign_page(origin: str) -> RequestError:
    remedy = "To let these pages in, list their origin in server.origins."
    if not _ORIGIN.fullmatch(origin):  # null is what any page can send
        remedy = "Pages can be let in by an origin of the form https://host:port only, listed in server.origins."
    message = f"Requests from web pages of {printable(origin)} are refused. {remedy}"
    return RequestError(message, "permission", code="foreign_origin")


def _is_local_page(origin: str) -> bool:
    """Whether a page is of this machine. The origin `null` is that of pages which browsers tell nothing about."""
    parts = _ORIGIN.fullmatch(origin)
    return parts is not None and _is_loopback(_host_in(parts["authority"]))


def _is_ours(authority: str, bound: str) -> bool:
    """Whether a Host header names this machine, or the address that the server is bound to."""
    host = _host_in(authority)
    return _is_loopback(host) or (bool(host) and host == bound.lower())


def _host_in(authority: str) -> str:
    """The host of `host:port`, in lower case; empty if it is no such thing."""
    parts = _AUTHORITY.fullmatch(authority)
    return parts["host"].strip("[]").lower().removesuffix(".") if parts else ""


def _is_loopback(host: str) -> bool:
    """Whether a name or an address never leaves this machine (RFC 6761 for the names)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
