"""Python types as JSON schemas, as the forms that providers take, and as Arrow columns."""
