"""The bundled plugins, declared by entry points like anyone's."""
