"""Lightning around the components: the only package that imports it."""
