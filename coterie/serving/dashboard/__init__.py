"""The dashboard: pages for operators and privacy officers, rendered on the server, without anything from outside."""
