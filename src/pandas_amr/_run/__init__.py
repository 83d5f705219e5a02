"""One execution: the pipeline, the thread that runs it, previews and estimates."""
