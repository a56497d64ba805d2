"""The built-in plugins: one file per strategy, source loader and data set reader."""
