"""The reduce stage: computed by pandas, or written by a tree of agents."""
