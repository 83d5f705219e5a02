"""What the stages of a run share: settings, the model, Python sessions, progress."""
