"""`/api/v1`: the deployment as JSON."""

from fastapi import FastAPI


def add_to(application: FastAPI) -> None:
    """Add the API's routes to the application."""
    del application
