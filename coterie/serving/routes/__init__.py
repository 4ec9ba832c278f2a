"""The REST API, one file per group of routes; each makes its router for one deployment."""
