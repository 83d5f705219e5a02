"""The plan, and the call that it is derived from: checked before anything is paid for."""
