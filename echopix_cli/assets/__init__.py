"""The bundled model and the demo clip."""
