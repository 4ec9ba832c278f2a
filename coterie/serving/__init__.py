"""What was learned, served: the REST API, its store, the dashboard."""
