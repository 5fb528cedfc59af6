"""Stands in for `nuclio` where it is not installed: what handlers import from it. Notebook magics need the real package."""

from nuclio_sdk import Context, Event, Logger, Platform, QualifiedOffset, Response, TriggerInfo

__all__ = ["Context", "Event", "Logger", "Platform", "QualifiedOffset", "Response", "TriggerInfo"]
