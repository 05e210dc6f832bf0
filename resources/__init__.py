"""The outside world as Dagster resources: settings, artifacts, the GPU, MLflow, child processes; each with a double."""
