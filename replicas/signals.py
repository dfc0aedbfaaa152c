"""What this room lets the rooms above it know; they are never imported here."""

from django.dispatch import Signal

# Sent by the prober about once an hour, in its database thread: delete what is older than `before` (a datetime).
pruning = Signal()
