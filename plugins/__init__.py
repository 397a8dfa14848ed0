"""The built-in plugins: one module or package per kind of tool, each used through the public plugin contract only."""
