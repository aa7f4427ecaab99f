"""Names of models that mean the same everywhere, apart from the registry: who asks a server needs no more of it."""

BUNDLED = "tiny"
AUTO = "auto"
PREFIX = "hf:"  # before OWNER/NAME[@REVISION]
