"""What a Ray cluster costs beside processes, and what it gains over one remote call a step."""
