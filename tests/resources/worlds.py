"""A home, an MLflow beside it, and attempts written as the assets write them."""

from types import SimpleNamespace

from dpo_pipeline.core.artifacts import Outcome, Parent, Recipe
from resources.mlflow_client import connect
from resources.mlflow_tracking import MlflowTracking
from resources.processes import this_process

PARENT = Parent("judgments/may", "judgments", "ab" * 32)
SETTINGS = {"dpo": {"beta": 0.1, "optimizer": {"learning_rate": 5e-7}}, "model": {"seed": 17}}
RECIPE = Recipe("dpo_checkpoint", "1", SETTINGS, (PARENT,))


class World:
    """A home, an MLflow beside it, and attempts written as the assets write them."""

    def __init__(self, home, uri):
        self.home, self.tracking = home, MlflowTracking(uri=uri)
        self.client, self.experiment = connect(uri, home.mlflow)
        self.warnings = []

    def start(self, key, asset="dpo_checkpoint", **changes):
        known = {
            "attempt": f"{key}/{asset}/-/0",
            "asset": asset,
            "partition": None,
            "recipe": RECIPE.digest,
            "dagster_run": key,
            "profile": "demo",
            "settings": SETTINGS,
            "code_version": "1",
            "parents": [{"role": PARENT.role, "kind": PARENT.kind, "digest": PARENT.digest}],
            "code": {"git_commit": "c0ffee"},
            "environment": {"python": "3.11", "versions": {"torch": "2"}},
            "process": this_process(),
        }
        return self.home.ledger.append("started", **{**known, **changes})

    def line(self, start, event, **fields):
        from assets.attempt import end_line

        return end_line(self.home, start, event, tracking=None, **fields)

    def begin(self, start, **options):
        return self.tracking.begin(start, home=self.home, warn=self.warnings.append, **options)

    def publish(self, text="weights", kind="dpo_checkpoint"):
        recipe = Recipe(kind, "1", SETTINGS, (PARENT,))
        with self.home.store.staging() as folder:
            (folder / "training.json").write_text(text)
            outcome = Outcome(counts={"steps": 3}, facts={"accuracy": 0.9, "loss kind": "x"})
            return self.home.store.publish(folder, recipe, outcome)

    def finished(self, key, text=None):
        """A whole attempt, told as it goes."""
        start = self.start(key)
        run = self.begin(start)
        artifact = self.publish(text or key)
        run.end(self.line(start, "finished", artifact=artifact.digest, remarks={"seconds": 1.5}), artifact)
        return SimpleNamespace(start=start, run=run, artifact=artifact, key=start["attempt"])

    def runs(self, key):
        return self.client.search_runs([self.experiment], f"tags.attempt = '{key}'")
