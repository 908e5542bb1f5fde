"""Dead letters at the edge: reading them, and bringing them back onto their topic, once."""


class DeadLetterError(Exception):
    """Dead letters cannot be read or brought back now. Nothing is lost; the text says what to do."""
