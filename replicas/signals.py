"""What this room lets the rooms above it know; they are never imported here."""

from django.dispatch import Signal

# Sent by the prober about once an hour, in its database thread: delete what is older than `before` (a datetime). A
# receiver deletes a few hundred rows at most and returns how many; it is sent again until all return none, so that the
# prober's other work in that thread, its beat above all, waits for no long deletion.
pruning = Signal()
