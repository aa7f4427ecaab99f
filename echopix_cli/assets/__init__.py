"""The bundled model, the demo clip and what rebuilds them."""
