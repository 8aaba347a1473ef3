"""The face of a deployment: pages for people and an API for programs, read as a mere reader."""
