"""What users type: the accessor, its verbs, recipes, tools of MCP servers."""
