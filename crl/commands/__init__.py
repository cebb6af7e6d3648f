"""Commands for pictures of your own: part of the package, so that an installed one has them."""
