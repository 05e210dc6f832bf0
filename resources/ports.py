"""Where `make ui` serves each of its pages; another port by DAGSTER_PORT, PAGES_PORT, MLFLOW_PORT.

Behind a reverse proxy people open other addresses: DAGSTER_URL, PAGES_URL and MLFLOW_URL name them, for links on the
pages and for the guard, which answers to no other name.
"""

import os
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
PORTS = {"dagster": 3000, "pages": 3001, "mlflow": 5000}


def port_of(name: str) -> int:
    """The port of `dagster`, `pages` or `mlflow`."""
    return int(os.environ.get(f"{name.upper()}_PORT") or PORTS[name])


def served_at(name: str) -> str:
    """The address people open in a browser."""
    return (os.environ.get(f"{name.upper()}_URL") or f"http://{LOOPBACK}:{port_of(name)}").rstrip("/")


def origin_of(name: str) -> str | None:
    """What a browser calls the origin of the address people open; None where that is the server's own."""
    address = urlsplit(os.environ.get(f"{name.upper()}_URL") or "")
    return f"{address.scheme}://{address.netloc}" if address.netloc else None


def hosts_of(name: str, port: int) -> list[str]:
    """The values of the Host header under which `name`, listening on `port`, is asked for, with their ports."""
    proxied = [urlsplit(os.environ[variable]).netloc] if os.environ.get(variable := f"{name.upper()}_URL") else []
    return [f"{LOOPBACK}:{port}", f"localhost:{port}", *proxied]
