"""A page, and still pictures, in which boxes are explained by the distributions of their edges."""
