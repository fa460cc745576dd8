"""The loop: optimizer, schedule, checkpoint, display. It knows no task."""
