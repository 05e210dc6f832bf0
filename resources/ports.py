"""Where `make ui` serves each of its pages; another port by DAGSTER_PORT, PAGES_PORT, MLFLOW_PORT."""

import os

LOOPBACK = "127.0.0.1"
PORTS = {"dagster": 3000, "pages": 3001, "mlflow": 5000}


def port_of(name: str) -> int:
    """The port of `dagster`, `pages` or `mlflow`."""
    return int(os.environ.get(f"{name.upper()}_PORT") or PORTS[name])


def served_at(name: str) -> str:
    """The address people open in a browser."""
    return f"http://{LOOPBACK}:{port_of(name)}"
