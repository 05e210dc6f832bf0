"""The Dagster layer: settings in, one library call, describe the artifact. Never torch, pyarrow or mlflow."""
