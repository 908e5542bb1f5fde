"""Gathers facts about a deployment for ``streams.core.diagnosis`` to judge. Reads, and changes nothing that matters."""
