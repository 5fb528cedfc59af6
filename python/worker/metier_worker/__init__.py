"""What runs around a real-time handler inside a worker: the ring's end, Event and Context, the event loop (docs/formats/ring.md)."""
