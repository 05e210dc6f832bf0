"""Telling people of a failed run: a log line, or a webhook that Slack, Mattermost, Teams or a pager understands."""

import http.client
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field

WEBHOOK_VARIABLE = "DPO_PIPELINE_ALERT_WEBHOOK"
LONGEST_REASON = 1_500
REPEAT = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that failed.

    Attributes:
        run: Its id.
        job: Its job.
        drop: The drop it was about, if it was about one.
        started_by: The schedule or sensor that started it, or a person.
        reasons: A sentence for each step that failed.
    """

    run: str
    job: str
    drop: str | None = None
    started_by: str = "a person"
    reasons: Sequence[str] = field(default=())

    @property
    def text(self) -> str:
        """All of it in lines for a person."""
        about = f" of drop {self.drop}" if self.drop else ""
        first = f"{self.job}{about} failed (run {self.run[:8]}, started by {self.started_by})."
        return "\n".join([first, *(f"- {reason[:LONGEST_REASON]}" for reason in self.reasons)])


class Alerts(dg.ConfigurableResource):
    """Base of the channels."""

    def send(self, failed: Failed) -> str | None:
        """Tell of it; why it could not be told, or None. Never raises: a channel may be away."""
        raise NotImplementedError


class LogAlerts(Alerts):
    """Nothing beyond the sensor's own log, where every failure is written anyway. The double."""

    def send(self, failed: Failed) -> str | None:
        """Nothing more to do."""
        del failed


class WebhookAlerts(Alerts):
    """POSTs JSON to a URL: `text` for chat tools, `run`, `job`, `drop`, `started_by`, `reasons` and `link` for others.

    The URL is a secret (chat tools put their key into it): it is read from the environment when needed, and no log, no
    error and no configuration page shows more of it than the host. Redirects are not followed.
    """

    variable: str = Field(default=WEBHOOK_VARIABLE, description="Environment variable that holds the URL.")
    ui: str = Field(default="http://127.0.0.1:3000", description="Where people open Dagster; for the link.")
    tries: int = Field(default=3, ge=1, description="How often it is tried in all.")
    seconds: float = Field(default=5.0, gt=0, description="Most seconds one try may take, however slowly it answers.")
    pause: float = Field(
        default=1.0, ge=0, description="Seconds before the second try; doubled before each further one."
    )

    def send(self, failed: Failed) -> str | None:
        """Post it; server errors and silence are tried again, refusals are not."""
        link = f"{self.ui}/runs/{failed.run}"
        words = {"text": f"{failed.text}\n{link}", **asdict(failed), "link": link}
        fault = "it was not tried"
        for number in range(self.tries):
            time.sleep(self.pause * 2 ** (number - 1) if number else 0)
            status, fault = post_json(os.environ.get(self.variable, ""), words, seconds=self.seconds)
            if status is not None and 200 <= status < 300:
                return None
            if status is not None and status < 500 and status not in REPEAT:
                return fault
        return fault


def post_json(url: str, words: dict[str, Any], *, seconds: float) -> tuple[int | None, str]:
    """Status and a sentence that names the host only; no status where no answer came in time."""
    found: list[tuple[int | None, str]] = []
    thread = threading.Thread(target=lambda: found.append(_post(url, words, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)  # a server that answers one byte a second outlasts every socket timeout
    return found[0] if found else (None, f"{_host(url)} gave no answer within {seconds:g} s")


def _post(url: str, words: dict[str, Any], seconds: float) -> tuple[int | None, str]:
    try:
        parts = urlsplit(url)
        kinds = {"https": http.client.HTTPSConnection, "http": http.client.HTTPConnection}
        if parts.scheme not in kinds or not parts.hostname:
            return 400, "the webhook is not an http or https URL"
        connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=seconds)
        try:
            path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            connection.request("POST", path, json.dumps(words).encode(), {"Content-Type": "application/json"})
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Only the error's kind: its text may repeat what was sent to, and that is the secret.
        return None, f"{_host(url)} could not be asked ({type(error).__name__})"
    return status, f"{_host(url)} answered {status}"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the webhook"
    except ValueError:
        return "the webhook"
