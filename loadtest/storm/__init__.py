"""A storm of alerts against receivers that fail, and what came through it."""
